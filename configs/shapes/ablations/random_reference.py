"""The reference in training is a random frame of the clip, rather than the first.

    python -m videogen_jax.train --config configs/shapes/ablations/random_reference.py:resolution=4 \
        --workdir runs/ablations/random_reference/seed_0/cascade_4
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_setting


def get_config(arg: str = "") -> ConfigDict:
    config = get_setting(arg)
    config.data.reference_frame = "random"
    return config
