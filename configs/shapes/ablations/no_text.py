"""No text: both stages see only the empty prompt. The reference image is still drawn from the caption.

    python -m videogen_jax.train --config configs/shapes/ablations/no_text.py:resolution=4 \
        --workdir runs/ablations/no_text/seed_0/cascade_4
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_setting


def get_config(arg: str = "") -> ConfigDict:
    config = get_setting(arg)
    config.model.text = False
    return config
