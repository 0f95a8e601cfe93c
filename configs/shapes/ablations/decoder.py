"""Image decoder or video decoder, on the true latents of held-out clips.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/decoder.py \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_measurement, seed_argument


def get_config(arg: str = "") -> ConfigDict:
    return get_measurement("decoder", seed_argument(arg))
