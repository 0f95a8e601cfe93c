"""Evaluation of the trained ablations: captions of the held-out split, at 16 frames of 64x64 pixels.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/evaluate.py:seed=0 \
        --model runs/ablations/whole/seed_0/model --output runs/ablations/whole/seed_0/evaluation
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_measurement, split_argument


def get_config(arg: str = "") -> ConfigDict:
    value, seed = split_argument(arg)
    if value:
        raise ValueError(f"the argument of this config is seed=NUMBER or nothing, not {arg!r}")
    return get_measurement("prompts", seed)
