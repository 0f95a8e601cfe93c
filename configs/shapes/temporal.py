"""Temporal upsampling of the shapes world's 16x16 latents, by 2 or 4.

python -m videogen_jax.train --config configs/shapes/temporal.py --workdir runs/shapes/temporal
"""

from ml_collections import ConfigDict

from configs.arguments import read_arguments
from configs.base import get_base_config, stage_defaults
from videogen_jax.models.flow import TemporalUpsampler
from videogen_jax.stages.temporal import TemporalStage


def get_config(arg: str = "") -> ConfigDict:
    read_arguments(arg)
    config = get_base_config()
    config.stage = "temporal"
    config.steps = 10_000
    config.batch_size = 8
    config.optimizer.learning_rate = 8e-4
    config.ema_decay = 0.998
    config.model = stage_defaults(TemporalStage, upsampler=TemporalUpsampler)
    config.model.factor = 4
    config.data.source = "shapes_latents"
    config.data.cache_folder = "runs/shapes/cache"
    config.data.seed = 5
    config.data.num_clips = 5000
    config.data.num_frames = 17  # five frames at the base rate, and three between each pair
    config.data.window_rates = (4,)
    config.data.resolution = 16
    config.data.text = False
    return config
