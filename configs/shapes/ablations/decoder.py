"""Image decoder or video decoder, on the true latents of held-out clips.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/decoder.py \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.arguments import SEED, read_arguments
from configs.shapes.ablations.measurement import get_measurement


def get_config(arg: str = "") -> ConfigDict:
    return get_measurement("decoder", read_arguments(arg, seed=SEED).seed)
