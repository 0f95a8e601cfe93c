#!/usr/bin/env bash
# Trains the embedded model of the shapes world from scratch and writes it as a model folder.
#
#   launch/train_shapes.sh [--root runs/shapes]
#
# Can be stopped at any time and started again: a finished stage is not repeated, an unfinished one resumes from its
# newest checkpoint. Stages run one after another; docs/embedded_model.md says which may run at the same time on a
# machine with two devices or more.
set -euo pipefail
cd "$(dirname "$0")/.."

root=runs/shapes
while [ $# -gt 0 ]; do
  case $1 in
    --root) root=${2:?--root needs a folder}; shift 2 ;;
    -h|--help) sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "error: unknown option $1; try --help" >&2; exit 2 ;;
  esac
done
model=$root/model

# run NAME CONFIG: train a stage and export it into the model folder.
run() {
  local name=$1 config=$2
  if [ -e "$root/$name/exported" ]; then
    echo "$name: done"
    return
  fi
  echo "$name: training"
  python -m videogen_jax.train --config "$config" --workdir "$root/$name" --config.model_folder="$model" "${@:3}"
  python -m videogen_jax.export --config "$config" --workdir "$root/$name" --output "$model" \
    --config.model_folder="$model" "${@:3}"
  touch "$root/$name/exported"
}

cached=(--config.data.cache_folder="$root/cache")
run text configs/shapes/text.py
run autoencoder configs/shapes/autoencoder.py
run autoencoder_full configs/shapes/autoencoder.py:frames=full
run autoencoder_decoder configs/shapes/autoencoder.py:part=decoder
run reference configs/shapes/reference.py "${cached[@]}"
run cascade_4 configs/shapes/cascade.py:resolution=4 "${cached[@]}"
run cascade_8 configs/shapes/cascade.py:resolution=8 "${cached[@]}"
run cascade_16 configs/shapes/cascade.py:resolution=16 "${cached[@]}"
run temporal configs/shapes/temporal.py "${cached[@]}"
run decoder configs/shapes/decoder.py "${cached[@]}"
cp configs/shapes/model_index.json "$model/model_index.json"
echo "the model is in $model"
