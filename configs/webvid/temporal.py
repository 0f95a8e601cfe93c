"""Temporal upsampling at the paper's scale, trained on unlabelled videos: 64x64 latents of frames at 32 a second.

    python -m videogen_jax.train --config configs/webvid/temporal.py --workdir runs/webvid/temporal \\
        --config.model_folder=stable-diffusion-v1-5 --config.data.corpus.folder=videos

The argument is the kind of corpus (configs/webvid/corpora.py), or "prepared" for a prepared data set, the hardware
(configs/webvid/hardware.py), or both: "prepared,v5e".
"""

from ml_collections import ConfigDict

from configs.base import get_base_config
from configs.webvid.corpora import get_prepared_data, get_videos_data
from configs.webvid.hardware import set_hardware, split_argument


def get_config(arg: str = "folder") -> ConfigDict:
    corpora, hardware = split_argument(arg)
    corpus = ",".join(corpora) or "folder"
    config = get_base_config()
    config.stage = "temporal"
    config.steps = 100_000
    config.batch_size = 32
    config.ema_decay = 0.999
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 1000
    config.model_folder = "stable-diffusion-v1-5"
    config.model = ConfigDict({"upsampler": {}, "factor": 4})
    if corpus == "prepared":
        config.data = get_prepared_data(64)
    else:
        # five frames at 7.5 a second and the three between each two
        config.data = get_videos_data(corpus, resolution=64, num_frames=17, fps=(30.0,))
        config.data.crop = config.data.flip = True
    config.example = ConfigDict({"num_frames": 17})
    set_hardware(config, hardware, "upsampler", spread=False)
    return config
