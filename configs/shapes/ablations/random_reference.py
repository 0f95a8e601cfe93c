"""Trained with the latents of a random frame of the clip as its reference, in place of the first.

    python -m videogen_jax.train --config configs/shapes/ablations/random_reference.py:4 \
        --workdir runs/ablations/random_reference/seed_0/cascade_4
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_setting


def get_config(arg: str = "4") -> ConfigDict:
    config = get_setting(arg)
    config.data.reference_frame = "random"
    return config
