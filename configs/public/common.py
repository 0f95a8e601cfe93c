"""What the configs that fine-tune public video models share."""

from ml_collections import ConfigDict

from configs.arguments import Key, read_arguments
from configs.base import get_base_config, stage_defaults
from configs.webvid.corpora import PREPARED, corpus_key, get_prepared_data, get_videos_data
from configs.webvid.hardware import HARDWARE_KEY, set_hardware
from videogen_jax.diffusion.schedules import make_schedule
from videogen_jax.models.unet import UNet


def fine_tuning(
    arg: str, stage: str, kind: type, model: str, side: int, num_frames: int, fps: float, network: type = UNet
) -> ConfigDict:
    """The config of a stage that is fine-tuned from a public model.

    Args:
      arg: the config file's arguments: `resolution` of the latents, `corpus` and `hardware`, as in configs/webvid.
      stage: its name.
      kind: its class.
      model: folder or hub id of the public model, which also holds the frozen parts.
      side: of the latents, by default.
      num_frames, fps: of the training clips.
      network: the UNet's class.
    """
    corpus, resolution = corpus_key(PREPARED, prepared=True), Key(side, tuple(range(16, 129, 8)))
    args = read_arguments(arg, resolution=resolution, corpus=corpus, hardware=HARDWARE_KEY)
    config = get_base_config()
    config.stage = stage
    config.steps = 10_000
    config.batch_size = 8
    config.ema_decay = 0.999
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_steps = 500
    config.optimizer.b2 = 0.999
    config.sample_every = 1000
    config.model_folder = model
    config.init_from = config.get_ref("model_folder") + ""  # follows the folder until set
    config.model = stage_defaults(kind, unet=network, schedule=make_schedule)
    config.model.unet.remat = True
    config.model.resolution = args.resolution
    if args.corpus == PREPARED:
        config.data = get_prepared_data(args.resolution)
    else:
        config.data = get_videos_data(args.corpus, args.resolution, num_frames, (fps,))
    config.example = ConfigDict({"num_frames": num_frames, "text_length": 77})
    set_hardware(config, args.hardware, "unet", 1)
    return config


def set_scheduler(config: ConfigDict, name: str, prediction_type: str, **schedule: object) -> None:
    """How the public model was trained: its noise schedule and what it predicts."""
    config.model.schedule.update(name=name, **schedule)
    config.model.prediction_type = prediction_type
    config.model.timestep_spacing = "leading"
    config.model.steps_offset = 1
