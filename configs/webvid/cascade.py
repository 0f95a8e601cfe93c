"""The cascade at the paper's scale: latents of 16x16, 32x32 and 64x64, 16 frames, from Stable Diffusion 1.5.

    python -m videogen_jax.train --config configs/webvid/cascade.py:resolution=16 --workdir runs/webvid/cascade_16 \\
        --config.model_folder=stable-diffusion-v1-5 --config.data.folder=data/webvid/1.0.0

The arguments, as in `cascade.py:resolution=16,hardware=v5e`:

- `resolution` of the stage's latents: 16, 32 or 64;
- `hardware`, for which batch, mesh and precision are set (configs/webvid/hardware.py);
- `corpus`, to train straight from the files of a corpus of that kind (configs/webvid/corpora.py), for small sets,
  rather than from a prepared data set.

With --config.image_fraction, that share of the batches is of still images, from config.image_data.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.arguments import Key, read_arguments
from configs.base import get_base_config, stage_defaults
from configs.webvid.corpora import PREPARED, corpus_key, get_prepared_data, get_videos_data
from configs.webvid.hardware import HARDWARE_KEY, set_hardware
from videogen_jax.diffusion.schedules import make_schedule
from videogen_jax.models.unet import UNet
from videogen_jax.stages.cascade import CascadeStage

RESOLUTIONS = (16, 32, 64)
FRAMES, FPS = 16, (8.0,)
# At the lower resolutions, a device would compute one clip in less time than it takes to gather the parameters.
CLIPS_PER_DEVICE = {
    "v5e": {16: 4, 32: 2, 64: 1},
    "v5p": {16: 16, 32: 8, 64: 4},
    "h100": {16: 16, 32: 8, 64: 2},
    "h200": {16: 16, 32: 8, 64: 4},
}


def get_config(arg: str = "") -> ConfigDict:
    args = read_arguments(
        arg,
        resolution=Key(RESOLUTIONS[0], RESOLUTIONS),
        corpus=corpus_key(PREPARED, prepared=True),
        hardware=HARDWARE_KEY,
    )
    side = args.resolution
    lower = None if side == RESOLUTIONS[0] else side // 2
    config = get_base_config()
    config.stage = "cascade"
    config.steps = 200_000
    config.batch_size = 64
    config.ema_decay = 0.9999
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 1000
    config.model_folder = "stable-diffusion-v1-5"
    config.init_from = config.get_ref("model_folder") + ""  # follows the folder until set
    config.model = stage_defaults(CascadeStage, unet=UNet, schedule=make_schedule)
    config.model.unet.update(
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention=(True, True, True, False),
        num_heads=8,
        cross_attention_dim=768,
        norm_num_groups=32,
        added_conditions=("fps",),
        remat=True,
    )
    config.model.schedule.update(name="scaled_linear", rescale_zero_terminal_snr=True)
    config.model.prediction_type = "v_prediction"
    config.model.resolution = side
    config.model.lower_resolution = lower
    if args.corpus != PREPARED:
        config.data = get_videos_data(args.corpus, side, FRAMES, FPS)
        config.data.lower_resolution = placeholder(int) if lower is None else lower
        config.image_data = get_videos_data("images", side, 1, FPS)
    else:
        config.data = get_prepared_data(side, lower)
        config.image_data = get_prepared_data(side, lower)
        config.image_data.folder = "data/images/1.0.0"
    config.example = ConfigDict({"num_frames": FRAMES, "text_length": 77})
    set_hardware(config, args.hardware, "unet", CLIPS_PER_DEVICE[args.hardware][side] if args.hardware else 1)
    return config
