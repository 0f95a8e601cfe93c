#!/usr/bin/env bash
# Trains on a TPU pod of Google Cloud as a queued resource: one process per host, which find each other by themselves.
#
#   launch/tpu_pod.sh create                         request the pod; it is ready when `status` says ACTIVE
#   launch/tpu_pod.sh install                        copy this repository to all hosts and install it
#   launch/tpu_pod.sh run -- --config configs/webvid/cascade.py:resolution=16,hardware=v5e --workdir /mnt/runs/cascade_16
#   launch/tpu_pod.sh logs                           follow the log of the first host (--worker N for another)
#   launch/tpu_pod.sh watch -- --config ... --workdir ...   all of it: create, install, run, and again after preemption
#   launch/tpu_pod.sh status | stop | delete         `stop` sends SIGTERM: the run saves and ends
#
# Arguments after -- are passed to `python -m videogen_jax.train`; all hosts must be able to reach --workdir and the data.
#
# Options, and the variables that set them:
#   --name NAME             TPU_NAME, videogen
#   --zone ZONE             TPU_ZONE, required
#   --project PROJECT       TPU_PROJECT; gcloud's own if it is not set
#   --type TYPE             TPU_TYPE, v5litepod-256
#   --version VERSION       TPU_VERSION, of the hosts' image: v2-alpha-tpuv5-lite (v5p: v2-alpha-tpuv5)
#   --spot                  TPU_SPOT=yes: cheaper, but may be preempted at any time
#   --setup COMMAND         TPU_SETUP: what `install` runs on every host first, such as mounting a shared folder
#   --worker N              WORKER, 0: the host whose log `logs` follows
#   --max-restarts N        MAX_RESTARTS, 100: of `watch`
#   --poll SECONDS          POLL, 60: how often `watch` checks
#   --dry-run               print the commands and run none
set -euo pipefail
launcher=$0
name=${TPU_NAME:-videogen} zone=${TPU_ZONE:-} project=${TPU_PROJECT:-} type=${TPU_TYPE:-v5litepod-256}
version=${TPU_VERSION:-v2-alpha-tpuv5-lite} spot=${TPU_SPOT:-} setup=${TPU_SETUP:-} worker=${WORKER:-0}
max_restarts=${MAX_RESTARTS:-100} poll=${POLL:-60} dry_run=

fail() { echo "error: $*" >&2; exit 2; }
usage() { sed -n '2,/^set /p' "$launcher" | sed '$d; s/^# \{0,1\}//'; }

[ $# -gt 0 ] || { usage >&2; exit 2; }
action=$1; shift
case $action in
  create|install|run|logs|watch|status|stop|delete) ;;
  -h|--help) usage; exit 0 ;;
  *) fail "unknown action $action; it is create, install, run, logs, watch, status, stop or delete" ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
    --name) name=${2:?--name needs a name}; shift 2 ;;
    --zone) zone=${2:?--zone needs a zone}; shift 2 ;;
    --project) project=${2:?--project needs a project}; shift 2 ;;
    --type) type=${2:?--type needs a type}; shift 2 ;;
    --version) version=${2:?--version needs a version}; shift 2 ;;
    --spot) spot=yes; shift ;;
    --setup) setup=${2:?--setup needs a command}; shift 2 ;;
    --worker) worker=${2:?--worker needs a number}; shift 2 ;;
    --max-restarts) max_restarts=${2:?--max-restarts needs a number}; shift 2 ;;
    --poll) poll=${2:?--poll needs seconds}; shift 2 ;;
    --dry-run) dry_run=yes; shift ;;
    -h|--help) usage; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown option $1; try --help" ;;
  esac
done
[ -n "$zone" ] || fail "--zone (or TPU_ZONE) must be given, e.g. us-west4-a"
case $action in run|watch) [ $# -gt 0 ] || fail "$action needs the arguments of the training after --" ;; esac
cd "$(dirname "$launcher")/.."

place=(--zone "$zone")
[ -z "$project" ] || place+=(--project "$project")

run() {
  printf '+ '; printf '%q ' "$@"; echo
  if [ -z "$dry_run" ]; then "$@"; fi
}
on_workers() { run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker "$1" --command "$2"; }

create() {
  local more=()
  [ -z "$spot" ] || more+=(--spot)
  run gcloud compute tpus queued-resources create "$name" --node-id "$name" "${place[@]}" \
    --accelerator-type "$type" --runtime-version "$version" "${more[@]}"
}
state() {
  if [ -n "$dry_run" ]; then echo ACTIVE; return; fi
  # WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDED (preempted), FAILED; empty if there is none.
  gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format 'value(state.state)' 2>/dev/null || true
}
install() {
  local archive=/tmp/videogen_jax.tar.gz
  [ -z "$setup" ] || on_workers all "$setup"
  run git archive --format tar.gz --output "$archive" HEAD
  run gcloud compute tpus tpu-vm scp "$archive" "$name:$archive" "${place[@]}" --worker all
  on_workers all "mkdir -p videogen_jax && tar -xzf $archive -C videogen_jax && cd videogen_jax && python3 -m venv .venv \
&& .venv/bin/pip install -q -U pip && .venv/bin/pip install -q -e . 'jax[tpu]'"
}
# The run continues when this connection ends; when it is over, run.status holds its status.
train() {
  local quoted
  quoted=$(printf '%q ' "$@")
  on_workers all "cd videogen_jax && rm -f run.status && PYTHONUNBUFFERED=1 nohup bash -c \
'echo \$\$ >run.pid; .venv/bin/python -m videogen_jax.train \"\$@\"; echo \$? >run.status' train $quoted \
>>run.log 2>&1 </dev/null &"
}
stop() { on_workers all "pkill -TERM -P \"\$(cat videogen_jax/run.pid)\" || true"; }
delete() { run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet; }
await() {
  local found
  until found=$(state); [ "$found" = ACTIVE ]; do
    case $found in FAILED|SUSPENDED|SUSPENDING) return 1 ;; esac
    echo "$name: ${found:-not there}"
    sleep "$poll"
  done
}
# ended: the worst status of all hosts once all have one; empty while they run or cannot be reached.
ended() {
  if [ -n "$dry_run" ]; then echo 0; return; fi
  local statuses
  statuses=$(gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker all \
    --command 'cat videogen_jax/run.status 2>/dev/null || echo running' 2>/dev/null) || return 0
  case $statuses in *running*|'') return 0 ;; esac
  # 1 and 2 are failures of the run itself; the others come from outside.
  if grep -qx '[12]' <<<"$statuses"; then grep -x '[12]' <<<"$statuses" | head -1; else sort -n <<<"$statuses" | tail -1; fi
}
watch() {
  local restarts status found
  for ((restarts = 0; restarts <= max_restarts; restarts++)); do
    if [ -z "$(state)" ] || [ -n "$dry_run" ]; then create; fi
    if await; then
      install
      while :; do
        train "$@"
        status=
        while [ -z "$status" ]; do
          [ -n "$dry_run" ] || sleep "$poll"
          found=$(state)
          [ "$found" = ACTIVE ] || break
          status=$(ended)
        done
        case ${status:-gone} in
          0) echo "$name: done; the pod stays until 'delete'"; return 0 ;;
          1|2) echo "$name: the run failed with status $status; see 'logs'" >&2; return "$status" ;;
          gone) break ;;
        esac
        restarts=$((restarts + 1))
        [ "$restarts" -le "$max_restarts" ] || break
        echo "$name: ended with status $status; restarting"
      done
    fi
    echo "$name: the pod is ${found:-not there}; requesting it again"
    delete || true
  done
  echo "$name: restarted $max_restarts times already; giving up" >&2
  return 75
}

case $action in
  create|install|stop|delete) "$action" ;;
  run) train "$@" ;;
  watch) watch "$@" ;;
  status) run gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format 'value(state.state)' ;;
  logs) on_workers "$worker" 'tail -n 100 -f videogen_jax/run.log' ;;
esac
