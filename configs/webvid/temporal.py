"""Temporal upsampling at the paper's scale, trained on unlabelled videos: 64x64 latents of frames at 30 a second.

    python -m videogen_jax.train --config configs/webvid/temporal.py --workdir runs/webvid/temporal \\
        --config.model_folder=stable-diffusion-v1-5 --config.data.corpus.folder=videos

The arguments are `corpus`, a kind of corpus (configs/webvid/corpora.py) or `prepared` for a prepared data set, and
`hardware` (configs/webvid/hardware.py): `temporal.py:corpus=prepared,hardware=v5e`.
"""

from ml_collections import ConfigDict

from configs.arguments import read_arguments
from configs.base import get_base_config, stage_defaults
from configs.webvid.corpora import PREPARED, corpus_key, get_prepared_data, get_videos_data
from configs.webvid.hardware import HARDWARE_KEY, set_hardware
from videogen_jax.models.flow import TemporalUpsampler
from videogen_jax.stages.temporal import TemporalStage


def get_config(arg: str = "") -> ConfigDict:
    args = read_arguments(arg, corpus=corpus_key("folder", prepared=True), hardware=HARDWARE_KEY)
    config = get_base_config()
    config.stage = "temporal"
    config.steps = 100_000
    config.batch_size = 32
    config.ema_decay = 0.999
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 1000
    config.model_folder = "stable-diffusion-v1-5"
    config.model = stage_defaults(TemporalStage, upsampler=TemporalUpsampler)
    config.model.factor = 4
    if args.corpus == PREPARED:
        config.data = get_prepared_data(64)
    else:
        # five frames at 7.5 a second, and three between each pair
        config.data = get_videos_data(args.corpus, resolution=64, num_frames=17, fps=(30.0,))
        config.data.crop = config.data.flip = True
    config.example = ConfigDict({"num_frames": 17})
    set_hardware(config, args.hardware, "upsampler", spread=False)
    return config
