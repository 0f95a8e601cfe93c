"""No noise augmentation: the upper stage is conditioned on the lower one's latents without added noise.

    python -m videogen_jax.train --config configs/shapes/ablations/no_augmentation.py:resolution=8 \
        --workdir runs/ablations/no_augmentation/seed_0/cascade_8
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_setting


def get_config(arg: str = "") -> ConfigDict:
    config = get_setting(arg, resolutions=(8,))
    config.model.max_noise_level = 0
    config.model.noise_level = 0
    return config
