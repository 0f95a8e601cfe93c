"""Temporal upsampling by linear blending, by warping along the flow alone, and by the full module.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/temporal.py \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_measurement, split_argument


def get_config(arg: str = "") -> ConfigDict:
    value, seed = split_argument(arg)
    if value:
        raise ValueError(f"the argument of this config is seed=NUMBER or nothing, not {arg!r}")
    return get_measurement("temporal", seed)
