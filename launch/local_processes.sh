#!/usr/bin/env bash
# Trains in several processes on this machine, and restarts them when one dies.
#
#   launch/local_processes.sh [options] -- --config configs/shapes/text.py --workdir runs/text [--config.field=value ...]
#
# Arguments after -- are passed to `python -m videogen_jax.train`. All processes end together, and all are restarted from
# the newest checkpoint if the first to end was killed by a signal, was preempted (status 75) or had lost another one
# (76). Any other failure is the run's own (2 bad input, 1 diverged): it ends the run, with that status.
#
# Options, and the variables that set them:
#   --processes N        NUM_PROCESSES, 2
#   --max-restarts N     MAX_RESTARTS, 3
#   --grace SECONDS      GRACE, 60: how long the others may take to end before they are killed
#   --heartbeat SECONDS  HEARTBEAT, 30: a process without a sign of life for this long counts as dead
#   --port PORT          PORT of the first process; a free one if it is not set
#   --logs FOLDER        LOGS: for files process-<i>.log; without it all processes write to this terminal
#   --dry-run            print the commands and run none
set -euo pipefail
launcher=$0
processes=${NUM_PROCESSES:-2} max_restarts=${MAX_RESTARTS:-3} grace=${GRACE:-60} heartbeat=${HEARTBEAT:-30}
port=${PORT:-} logs=${LOGS:-} dry_run=

fail() { echo "error: $*" >&2; exit 2; }
number() { [[ $2 =~ ^[0-9]+$ ]] || fail "$1 is '$2'; it must be a number"; }

while [ $# -gt 0 ]; do
  case $1 in
    --processes) processes=${2:?--processes needs a number}; shift 2 ;;
    --max-restarts) max_restarts=${2:?--max-restarts needs a number}; shift 2 ;;
    --grace) grace=${2:?--grace needs seconds}; shift 2 ;;
    --heartbeat) heartbeat=${2:?--heartbeat needs seconds}; shift 2 ;;
    --port) port=${2:?--port needs a number}; shift 2 ;;
    --logs) logs=${2:?--logs needs a folder}; shift 2 ;;
    --dry-run) dry_run=yes; shift ;;
    -h|--help) sed -n '2,/^set /p' "$launcher" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown option $1; try --help" ;;
  esac
done
number --processes "$processes"; number --max-restarts "$max_restarts"
number --grace "$grace"; number --heartbeat "$heartbeat"
[ "$processes" -ge 1 ] || fail "--processes is $processes; it must be 1 or more"
[ $# -gt 0 ] || fail "the arguments of the training must follow --, as in: $launcher -- --config CONFIG --workdir FOLDER"
cd "$(dirname "$launcher")/.."

free_port() {
  python -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])'
}

pids=()
stop_all() {
  for pid in "${pids[@]}"; do kill "-$1" "$pid" 2>/dev/null || true; done
}
stopping=
on_signal() { stopping=yes; stop_all TERM; }
trap on_signal TERM INT

# start ATTEMPT PORT ARGUMENTS...
start() {
  local attempt=$1 at=$2 i; shift 2
  pids=()
  for ((i = 0; i < processes; i++)); do
    local command=(python -m videogen_jax.train "$@" --coordinator "localhost:$at" --num_processes "$processes"
      --process_id "$i" --heartbeat_timeout "$heartbeat")
    if [ -n "$dry_run" ]; then
      printf '%q ' "${command[@]}"; echo
    elif [ -n "$logs" ]; then
      mkdir -p "$logs"
      echo "--- start $attempt" >>"$logs/process-$i.log"
      "${command[@]}" >>"$logs/process-$i.log" 2>&1 &
      pids+=($!)
    else
      "${command[@]}" &
      pids+=($!)
    fi
  done
}

# end_of_first: waits until a process fails or all have succeeded, and sets `first` to the status.
end_of_first() {
  local left=$processes status ended
  first=0
  while [ "$left" -gt 0 ]; do
    status=0
    ended=
    wait -n -p ended "${pids[@]}" || status=$?
    # A signal to this script ends `wait` without a process having ended.
    [ -n "${ended:-}" ] || continue
    left=$((left - 1))
    for i in "${!pids[@]}"; do [ "${pids[$i]}" != "$ended" ] || unset "pids[$i]"; done
    if [ "$status" -ne 0 ]; then first=$status; return; fi
  done
}

end_others() {
  local deadline=$((SECONDS + grace)) pid
  while [ ${#pids[@]} -gt 0 ] && [ "$SECONDS" -lt "$deadline" ]; do
    for i in "${!pids[@]}"; do kill -0 "${pids[$i]}" 2>/dev/null || unset "pids[$i]"; done
    sleep 0.2
  done
  for pid in "${pids[@]}"; do
    echo "local_processes: killing process $pid, which has not ended in $grace s" >&2
    kill -KILL "$pid" 2>/dev/null || true
  done
  wait
}

for ((attempt = 0; ; attempt++)); do
  if [ -n "$dry_run" ]; then start 0 "${port:-PORT}" "$@"; exit 0; fi
  [ -z "$stopping" ] || exit 75
  start "$attempt" "${port:-$(free_port)}" "$@"
  end_of_first
  if [ "$first" -eq 0 ]; then exit 0; fi
  echo "local_processes: a process ended with status $first; waiting for the others" >&2
  end_others
  # After a signal to stop, whoever sent it starts this script again.
  if [ -n "$stopping" ]; then exit "$first"; fi
  if [ "$first" -ne 75 ] && [ "$first" -ne 76 ] && [ "$first" -lt 129 ]; then exit "$first"; fi
  if [ "$attempt" -ge "$max_restarts" ]; then
    echo "local_processes: restarted $max_restarts times already; giving up" >&2
    exit "$first"
  fi
  echo "local_processes: start $((attempt + 1)) of at most $max_restarts more" >&2
done
