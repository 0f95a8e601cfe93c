"""Temporal upsampling by linear blending, by warping along the flow alone, and by the full module.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/temporal.py \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.arguments import SEED, read_arguments
from configs.shapes.ablations.measurement import get_measurement


def get_config(arg: str = "") -> ConfigDict:
    return get_measurement("temporal", read_arguments(arg, seed=SEED).seed)
