"""Text to image for the shapes world: the reference image's 16x16x4 latents.

python -m videogen_jax.train --config configs/shapes/reference.py --workdir runs/shapes/reference
"""

from ml_collections import ConfigDict

from configs.arguments import read_arguments
from configs.base import get_base_config, stage_defaults
from videogen_jax.diffusion.schedules import make_schedule
from videogen_jax.models.unet import UNet
from videogen_jax.stages.reference import ReferenceStage


def get_config(arg: str = "") -> ConfigDict:
    read_arguments(arg)
    config = get_base_config()
    config.stage = "reference"
    config.steps = 27_500
    config.batch_size = 16
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 200
    config.ema_decay = 0.999
    config.sample_every = 1000
    config.sample_count = 8
    config.model = stage_defaults(ReferenceStage, unet=UNet, schedule=make_schedule)
    config.model.unet.update(
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        cross_attention=(False, True, True),
        num_heads=4,
        cross_attention_dim=128,
        norm_num_groups=16,
    )
    config.model.schedule.update(name="cosine", rescale_zero_terminal_snr=True)
    config.model.prediction_type = "v_prediction"
    config.model.timestep_logit_normal = (0.3, 1.2)  # shapes form at rather high noise, their points at lower
    config.data.source = "shapes_latents"
    config.data.cache_folder = "runs/shapes/cache"
    config.data.seed = 2
    config.data.num_clips = 12_000
    config.data.emphasis = ("small", "star")  # detail of a few latent cells, in an eighth of the clips
    config.data.num_frames = 1
    config.data.resolution = 16
    return config
