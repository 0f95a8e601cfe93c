"""The cascade of the shapes world: latents of 4x4, 8x8 and 16x16, 16 frames.

    python -m videogen_jax.train --config configs/shapes/cascade.py:resolution=4 --workdir runs/shapes/cascade_4

`resolution` is that of the stage's latents: 4, 8 or 16.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.arguments import Key, read_arguments
from configs.base import get_base_config, stage_defaults
from videogen_jax.diffusion.schedules import make_schedule
from videogen_jax.models.unet import UNet
from videogen_jax.stages.cascade import CascadeStage

# resolution: (widths, levels with attention, steps, batch, clips cached as latents)
STAGES = {
    4: ((64, 128), (True, True), 11_600, 12, 8000),
    8: ((48, 80), (False, True), 4_100, 4, 3000),
    16: ((64, 128, 128), (False, True, True), 6_500, 2, 4000),
}


def get_config(arg: str = "") -> ConfigDict:
    resolution = read_arguments(arg, resolution=Key(4, tuple(STAGES))).resolution
    widths, attention, steps, batch, clips = STAGES[resolution]
    lower = None if resolution == 4 else resolution // 2  # the first stage has none below
    config = get_base_config()
    config.stage = "cascade"
    config.steps = steps
    config.batch_size = batch
    if resolution == 16:
        config.init_from = config.get_ref("model_folder") + "/unet"  # the spatial layers start as the reference's
    config.optimizer.learning_rate = 5e-4
    config.model = stage_defaults(CascadeStage, unet=UNet, schedule=make_schedule)
    config.model.unet.update(
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention=attention,
        num_heads=4,
        cross_attention_dim=128,
        norm_num_groups=16,
    )
    if resolution == 16:
        config.model.unet.reference_attention = (False, True, True)
        config.model.reference_frames = "clean"
        config.model.reference_init = 0.5  # starting from 0, these weights stayed a tenth as large as the others
    else:
        config.model.reference_frames = "all"
    config.model.schedule.update(name="cosine", rescale_zero_terminal_snr=True)
    config.model.prediction_type = "v_prediction"
    # With uniform timesteps, low-noise ones dominate the loss, though they decide little of what a viewer sees.
    config.model.timestep_logit_normal = (0.7, 1.0)
    config.model.resolution = resolution
    config.model.lower_resolution = lower
    config.data.source = "shapes_latents"
    config.data.cache_folder = "runs/shapes/cache"
    config.data.seed = 3
    config.data.num_clips = clips
    config.data.emphasis = ("small", "star") if resolution == 16 else ()  # as in reference.py
    config.data.num_frames = 16
    config.data.resolution = resolution
    config.data.lower_resolution = placeholder(int) if lower is None else lower
    return config
