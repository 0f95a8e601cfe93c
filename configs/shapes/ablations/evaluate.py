"""Evaluation of the trained ablations: 256 captions of the held-out split, at 16 frames of 64x64 pixels.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/evaluate.py:seed=0 \
        --model runs/ablations/whole/seed_0/model --output runs/ablations/whole/seed_0/evaluation
"""

from ml_collections import ConfigDict

from configs.arguments import SEED, read_arguments
from configs.shapes.ablations.measurement import get_measurement


def get_config(arg: str = "") -> ConfigDict:
    config = get_measurement("prompts", read_arguments(arg, seed=SEED).seed)
    config.prompts = 256
    return config
