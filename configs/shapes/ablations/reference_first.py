"""The reference joined to the first frame only, with zeros for the others, rather than to every frame.

    python -m videogen_jax.train --config configs/shapes/ablations/reference_first.py:resolution=4 \
        --workdir runs/ablations/reference_first/seed_0/cascade_4
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_setting


def get_config(arg: str = "") -> ConfigDict:
    config = get_setting(arg)
    config.model.reference_frames = "first"
    return config
