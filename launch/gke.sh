#!/usr/bin/env bash
# Fills in launch/gke_jobset.yaml and applies it to a Kubernetes cluster.
#
#   launch/gke.sh --image IMAGE --claim runs -- --config configs/webvid/cascade.py:resolution=16,hardware=v5e --workdir /mnt/runs/cascade_16
#   launch/gke.sh --dry-run --image IMAGE --claim runs -- ...    print the JobSet and apply nothing
#
# Arguments after -- are passed to `python -m videogen_jax.train`. To have the cluster check the JobSet, pipe the output
# of --dry-run into `kubectl apply --dry-run=server -f -`. `kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=NAME`
# follows the logs, `kubectl delete jobset NAME` ends the run (it saves first).
#
# Options, and the variables that set them:
#   --image IMAGE           IMAGE with this repository installed; required
#   --claim NAME            CLAIM: a PersistentVolumeClaim that all hosts may write (Filestore, or a bucket by Cloud
#                           Storage FUSE), mounted at /mnt/runs for --workdir and the data; required
#   --name NAME             NAME, videogen
#   --accelerator NAME      ACCELERATOR, tpu-v5-lite-podslice (v5p: tpu-v5p-slice)
#   --topology SHAPE        TOPOLOGY, 16x16
#   --chips-per-host N      CHIPS_PER_HOST, 4
#   --max-restarts N        MAX_RESTARTS, 100
#   --dry-run               print the JobSet
set -euo pipefail
launcher=$0
image=${IMAGE:-} claim=${CLAIM:-} name=${NAME:-videogen} accelerator=${ACCELERATOR:-tpu-v5-lite-podslice} topology=${TOPOLOGY:-16x16}
chips_per_host=${CHIPS_PER_HOST:-4} max_restarts=${MAX_RESTARTS:-100} dry_run=

fail() { echo "error: $*" >&2; exit 2; }
number() { [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 is '$2'; it must be a number"; }

while [ $# -gt 0 ]; do
  case $1 in
    --image) image=${2:?--image needs an image}; shift 2 ;;
    --claim) claim=${2:?--claim needs a name}; shift 2 ;;
    --name) name=${2:?--name needs a name}; shift 2 ;;
    --accelerator) accelerator=${2:?--accelerator needs a name}; shift 2 ;;
    --topology) topology=${2:?--topology needs a shape}; shift 2 ;;
    --chips-per-host) chips_per_host=${2:?--chips-per-host needs a number}; shift 2 ;;
    --max-restarts) max_restarts=${2:?--max-restarts needs a number}; shift 2 ;;
    --dry-run) dry_run=yes; shift ;;
    -h|--help) sed -n '2,/^set /p' "$launcher" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown option $1; try --help" ;;
  esac
done
[ -n "$image" ] || fail "--image (or IMAGE) must be given"
[ -n "$claim" ] || fail "--claim (or CLAIM) must be given: a PersistentVolumeClaim that all hosts may write"
[ $# -gt 0 ] || fail "the arguments of the training must follow --, as in: $launcher --image IMAGE --claim NAME -- --config CONFIG --workdir FOLDER"
number --chips-per-host "$chips_per_host"; number --max-restarts "$max_restarts"
[[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || fail "--topology is '$topology'; it must be like 16x16 or 4x4x4"
chips=$((${topology//x/*}))
[ $((chips % chips_per_host)) -eq 0 ] || fail "--topology $topology has $chips chips, which is not a multiple of $chips_per_host, the chips of a host"

# The arguments as a JSON list, which is valid YAML.
arguments=
for argument in "$@"; do
  argument=${argument//\\/\\\\}
  arguments+="${arguments:+, }\"${argument//\"/\\\"}\""
done

manifest=$(cat "$(dirname "$launcher")/gke_jobset.yaml")
# fill NAME VALUE
fill() { manifest=${manifest//"\${$1}"/"$2"}; }
fill NAME "$name"; fill IMAGE "$image"; fill CLAIM "$claim"; fill ACCELERATOR "$accelerator"; fill TOPOLOGY "$topology"
fill HOSTS $((chips / chips_per_host)); fill CHIPS_PER_HOST "$chips_per_host"; fill MAX_RESTARTS "$max_restarts"
fill ARGS "[$arguments]"
if [ -n "$dry_run" ]; then
  printf '%s\n' "$manifest"
else
  printf '%s\n' "$manifest" | kubectl apply -f -
fi
