"""One stage at the full resolution, at equal training compute, in place of the cascade.

    python -m videogen_jax.train --config configs/shapes/ablations/one_stage.py:8 \
        --workdir runs/ablations/one_stage/seed_0/cascade_8

The network is the cascade's lower one, which has to make the motion, on latents of four times the area. The steps are
those that give as many operations as both stages of the cascade together (`benchmarks/experiments.py` counts them, and
a test holds the two equal).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.shapes.ablations.setting import STAGES, get_setting

STEPS, BATCH = 1553, 4


def get_config(arg: str = "8") -> ConfigDict:
    config = get_setting(arg, stages=("8",))
    widths, attention, _, _ = STAGES["4"]
    config.steps = STEPS
    config.batch_size = BATCH
    config.model.unet.block_out_channels = widths
    config.model.unet.cross_attention = attention
    config.model.lower_resolution = placeholder(int)  # the clips are those of the cascade's upper stage
    return config
