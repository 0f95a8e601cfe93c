"""No reference image: neither stage is conditioned on it, in training or in sampling.

    python -m videogen_jax.train --config configs/shapes/ablations/no_reference.py:resolution=4 \
        --workdir runs/ablations/no_reference/seed_0/cascade_4
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_setting


def get_config(arg: str = "") -> ConfigDict:
    config = get_setting(arg)
    config.model.reference_frames = "none"
    return config
