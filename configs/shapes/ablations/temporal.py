"""Temporal upsampling by linear blending, by warping along the flow alone, and by the full module.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/temporal.py \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_measurement, seed_argument


def get_config(arg: str = "") -> ConfigDict:
    return get_measurement("temporal", seed_argument(arg))
