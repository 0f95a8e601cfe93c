"""The setting unchanged: the baseline of every other trained ablation.

    python -m videogen_jax.train --config configs/shapes/ablations/whole.py:resolution=4 \
        --workdir runs/ablations/whole/seed_0/cascade_4
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_setting


def get_config(arg: str = "") -> ConfigDict:
    return get_setting(arg)
