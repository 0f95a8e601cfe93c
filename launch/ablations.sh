#!/usr/bin/env bash
# Runs the ablations of docs/experiments.md, one process after another: trains, exports and evaluates.
#
#   launch/ablations.sh [options] [-- --config.field=value ...]
#
# Can be stopped at any time and started again: finished runs are not repeated, and interrupted ones resume. Each
# ablation is a config of that name in configs/shapes/ablations; those that need no training measure the embedded model
# and come first. Arguments after -- are passed to every training. The checkpoints of a stage are removed once it is
# exported. `python benchmarks/experiments.py ROOT` saves the results in docs/experiments and makes tables and plots.
#
# Options:
#   --root FOLDER      runs/ablations
#   --only NAME ...    only these ablations, and what they depend on; otherwise all, which --help lists
#   --seeds "S ..."    "0 1 2": seeds of the trainings, and of the captions, clips and noise of the evaluations
#   --prompts N        captions of an evaluation, instead of the config's number
#   --dry-run          print the commands that remain to be run, and run none
set -euo pipefail
launcher=$0
measured=(temporal decoder as_shipped guidance reference_guidance steps sampler)
trained=(whole no_reference one_stage no_augmentation reference_first random_reference no_text)
root=runs/ablations seeds="0 1 2" only=() prompts=() dry_run="" shown="" more=()

fail() { echo "error: $*" >&2; exit 2; }

settings_of() { # the settings at which an ablation measures, as arguments of its config
  case $1 in
    guidance) echo guidance_scale={1.0,2.0,6.0} ;;
    reference_guidance) echo reference_guidance_scale={1.0,3.0} ;;
    steps) echo steps={5,10,20} ;;
    sampler) echo sampler={ddim,euler} ;;
  esac
}

while [ $# -gt 0 ]; do
  case $1 in
    --root) root=${2:?--root needs a folder}; shift 2 ;;
    --only)
      shift
      while [ $# -gt 0 ] && [[ $1 != -* ]]; do only+=("$1"); shift; done
      [ ${#only[@]} -gt 0 ] || fail "--only needs the name of an ablation; try --help"
      ;;
    --seeds) seeds=${2:?--seeds needs numbers}; shift 2 ;;
    --prompts) prompts=("--config.prompts=${2:?--prompts needs a number}"); shift 2 ;;
    --dry-run) dry_run=yes; shift ;;
    -h|--help)
      sed -n '2,/^set /p' "$launcher" | sed '$d; s/^# \{0,1\}//'
      printf '\nMeasured on the embedded model: %s\nTrained: %s\n' "${measured[*]}" "${trained[*]}"
      exit 0
      ;;
    --) shift; more=("$@"); break ;;
    *) fail "unknown option $1; try --help" ;;
  esac
done
[ ${#only[@]} -gt 0 ] || only=("${measured[@]}" "${trained[@]}")
for name in "${only[@]}"; do
  [[ " ${measured[*]} ${trained[*]} " == *" $name "* ]] || fail "there is no ablation $name; try --help"
done
for seed in $seeds; do
  [[ $seed =~ ^[0-9]+$ ]] || fail "--seeds has '$seed'; seeds are numbers, as in --seeds \"0 1 2\""
done
cd "$(dirname "$launcher")/.."
ablations=configs/shapes/ablations
embedded=videogen_jax/embedded/shapes

# piece MARKER COMMAND...: runs the command unless the marker exists, and creates the marker if it succeeds.
piece() {
  local marker=$1
  shift
  if [ -e "$marker" ]; then return; fi
  if [ -n "$dry_run" ]; then
    [[ $shown == *"|$marker|"* ]] || { printf '%q ' "$@"; echo; }
    shown+="|$marker|"
    return
  fi
  echo "next: $*"
  "$@"
  mkdir -p "$(dirname "$marker")"
  touch "$marker"
}

evaluate() { # FOLDER CONFIG MODEL
  piece "$1/evaluated" python -m videogen_jax.evaluate --config "$2" --model "$3" --output "$1/evaluation" \
    ${prompts[@]+"${prompts[@]}"}
}

measure() { # NAME SEED
  local setting
  if [ -z "$(settings_of "$1")" ]; then
    evaluate "$root/$1/seed_$2" "$ablations/$1.py:seed=$2" "$embedded"
  fi
  for setting in $(settings_of "$1"); do
    evaluate "$root/$1_${setting#*=}/seed_$2" "$ablations/$1.py:$setting,seed=$2" "$embedded"
  done
}

stage() { # NAME SEED RESOLUTION: trains and exports a stage
  local folder=$root/$1/seed_$2 config=$ablations/$1.py:resolution=$3,seed=$2
  local workdir=$folder/cascade_$3
  local same=(--config "$config" --workdir "$workdir" --config.data.cache_folder="$root/cache" ${more[@]+"${more[@]}"})
  piece "$workdir/trained" python -m videogen_jax.train "${same[@]}"
  piece "$workdir/exported" python -m videogen_jax.export "${same[@]}" --output "$folder/model"
  [ -n "$dry_run" ] || rm -rf "$workdir/checkpoints"
}

train() { # NAME SEED
  local model=$root/$1/seed_$2/model index=$ablations/model_index.json part
  case $1 in
    one_stage) stage "$1" "$2" 8; index=$ablations/model_index_one_stage.json ;;
    no_augmentation) stage whole "$2" 4; stage "$1" "$2" 8 ;;
    *) stage "$1" "$2" 4; stage "$1" "$2" 8 ;;
  esac
  if [ -z "$dry_run" ] && [ ! -e "$root/$1/seed_$2/evaluated" ]; then
    mkdir -p "$model"
    for part in text_encoder tokenizer vae unet scheduler; do
      ln -sfn "$PWD/$embedded/$part" "$model/$part"
    done
    [ "$1" != no_augmentation ] || cp -r "$root/whole/seed_$2/model/cascade_4" "$model/"
    cp "$index" "$model/model_index.json"
  fi
  evaluate "$root/$1/seed_$2" "$ablations/evaluate.py:seed=$2" "$model"
  piece "$root/$1/seed_$2/denoised" python benchmarks/denoising.py --model "$model" --cache "$root/cache" --seed "$2" \
    --output "$root/$1/seed_$2/denoising.json"
}

for seed in $seeds; do
  for name in "${only[@]}"; do
    if [[ " ${measured[*]} " == *" $name "* ]]; then measure "$name" "$seed"; else train "$name" "$seed"; fi
  done
done
[ -n "$dry_run" ] || echo "all runs are finished; for tables and plots: python benchmarks/experiments.py $root"
