"""The setting itself, which every other trained ablation is compared to.

    python -m videogen_jax.train --config configs/shapes/ablations/whole.py:4 \
        --workdir runs/ablations/whole/seed_0/cascade_4
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_setting


def get_config(arg: str = "4") -> ConfigDict:
    return get_setting(arg)
