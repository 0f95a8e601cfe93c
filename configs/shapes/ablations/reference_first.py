"""The reference joined to the first frame alone, and zeros to the others, in place of every frame.

    python -m videogen_jax.train --config configs/shapes/ablations/reference_first.py:4 \
        --workdir runs/ablations/reference_first/seed_0/cascade_4
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_setting


def get_config(arg: str = "4") -> ConfigDict:
    config = get_setting(arg)
    config.model.reference_frames = "first"
    return config
