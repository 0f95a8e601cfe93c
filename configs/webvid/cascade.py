"""The cascade at the paper's scale: latents of 16x16, 32x32 and 64x64, 16 frames, from Stable Diffusion 1.5.

    python -m videogen_jax.train --config configs/webvid/cascade.py:16 --workdir runs/webvid/cascade_16 \\
        --config.model_folder=stable-diffusion-v1-5 --config.data.folder=data/webvid/1.0.0

The argument is the resolution of the stage, 16, 32 or 64. "16,v5e" has the batch, mesh and precision for that
hardware (configs/webvid/hardware.py). "16,folder" trains straight from the files of a corpus of that kind
(configs/webvid/corpora.py), for small sets, instead of from a prepared data set. With --config.image_fraction that
share of the batches is of still images, from config.image_data.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.base import get_base_config
from configs.webvid.corpora import get_prepared_data, get_videos_data
from configs.webvid.hardware import set_hardware, split_argument

RESOLUTIONS = ("16", "32", "64")
FRAMES, FPS = 16, (8.0,)
# At the lower resolutions one clip would be computed faster than the parameters that it needs are gathered.
CLIPS_PER_DEVICE = {
    "v5e": {"16": 4, "32": 2, "64": 1},
    "v5p": {"16": 16, "32": 8, "64": 4},
    "h100": {"16": 16, "32": 8, "64": 2},
    "h200": {"16": 16, "32": 8, "64": 4},
}


def get_config(arg: str = "16") -> ConfigDict:
    parts, hardware = split_argument(arg)
    resolution, corpus = parts[0] if parts else "", ",".join(parts[1:])
    if resolution not in RESOLUTIONS:
        raise ValueError(f"the argument begins with a resolution, {', '.join(RESOLUTIONS)}, not {resolution!r}")
    side = int(resolution)
    lower = None if resolution == RESOLUTIONS[0] else side // 2
    config = get_base_config()
    config.stage = "cascade"
    config.steps = 200_000
    config.batch_size = 64
    config.ema_decay = 0.9999
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 1000
    config.model_folder = "stable-diffusion-v1-5"
    config.init_from = config.get_ref("model_folder") + ""  # one way: to set it leaves model_folder alone
    config.model = ConfigDict()
    config.model.unet = ConfigDict(
        {
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "cross_attention": (True, True, True, False),
            "num_heads": 8,
            "cross_attention_dim": 768,
            "norm_num_groups": 32,
            "added_conditions": ("fps",),
            "remat": True,
        }
    )
    config.model.schedule = ConfigDict({"name": "scaled_linear", "rescale_zero_terminal_snr": True})
    config.model.prediction_type = "v_prediction"
    config.model.resolution = side
    config.model.lower_resolution = placeholder(int) if lower is None else lower
    if corpus:
        config.data = get_videos_data(corpus, side, FRAMES, FPS)
        config.data.lower_resolution = placeholder(int) if lower is None else lower
        config.image_data = get_videos_data("images", side, 1, FPS)
    else:
        config.data = get_prepared_data(side, lower)
        config.image_data = get_prepared_data(side, lower)
        config.image_data.folder = "data/images/1.0.0"
    config.example = ConfigDict({"num_frames": FRAMES, "text_length": 77})
    set_hardware(config, hardware, "unet", CLIPS_PER_DEVICE[hardware][resolution] if hardware else 1)
    return config
