"""One stage at the full resolution in place of the cascade, with the same training compute.

    python -m videogen_jax.train --config configs/shapes/ablations/one_stage.py:resolution=8 \
        --workdir runs/ablations/one_stage/seed_0/cascade_8

The network is that of the cascade's first stage, since it has to make the motion, on latents of four times the area.
The number of steps is such that training takes as many operations as both stages of the cascade together
(`benchmarks/experiments.py` counts them, and a test compares the two).
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import STAGES, get_setting

STEPS, BATCH = 1553, 4


def get_config(arg: str = "") -> ConfigDict:
    config = get_setting(arg, resolutions=(8,))
    widths, attention, _, _ = STAGES[4]
    config.steps = STEPS
    config.batch_size = BATCH
    config.model.unet.block_out_channels = widths
    config.model.unet.cross_attention = attention
    config.model.lower_resolution = None  # the clips are those of the cascade's upper stage
    return config
