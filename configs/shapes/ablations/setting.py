"""The setting that the trained ablations share, each of which changes one thing of it.

A cascade of latents of 4x4 and 8x8, 16 frames of 64x64 pixels, small enough to be trained from nothing many times over:
what is frozen (text encoder, autoencoder, the stage that draws the reference image) is the embedded model's, and only
the video stages are trained. All runs read the same cached clips; the seed of a run sets its first parameters, the
order of its clips and its noise. What is not said here is as in configs/shapes/cascade.py.

The argument of an ablation's config is the resolution of the stage and, if it is not 0, the seed: "8,seed=2".
"""

from ml_collections import ConfigDict

from configs.shapes.cascade import get_config as get_cascade
from configs.shapes.evaluate import get_config as get_evaluation

MODEL_FOLDER = "videogen_jax/embedded/shapes"

# resolution: (widths, levels with attention, steps, batch)
STAGES = {
    "4": ((48, 96), (True, True), 2000, 8),
    "8": ((48, 80), (False, True), 900, 4),
}


def split_argument(arg: str) -> tuple[str, int]:
    """What stands before the seed, and the seed: "8,seed=2" -> ("8", 2), "8" -> ("8", 0), "seed=2" -> ("", 2).

    Raises:
      ValueError: there is anything else, or the seed is no number.
    """
    value, _, seed = arg.partition(",") if not arg.startswith("seed=") else ("", "", arg)
    if seed and not (seed.startswith("seed=") and seed.removeprefix("seed=").isdecimal()):
        raise ValueError(f"behind the value the argument of this config has seed=NUMBER, not {seed!r}")
    return value, int(seed.removeprefix("seed=") or 0)


def seed_argument(arg: str) -> int:
    """The seed of an ablation whose argument is nothing else. ValueError: there is something else."""
    value, seed = split_argument(arg)
    if value:
        raise ValueError(f"the argument of this config is seed=NUMBER or nothing, not {arg!r}")
    return seed


def get_setting(arg: str = "4", stages: tuple[str, ...] = tuple(STAGES)) -> ConfigDict:
    """The training config of one stage of the setting.

    Args:
      arg: see above.
      stages: resolutions that the ablation trains.
    """
    side, seed = split_argument(arg)
    if side not in stages:
        raise ValueError(
            f"the argument of this config is a resolution, {' or '.join(stages)}, and if wanted a seed, as in "
            f'"{stages[0]},seed=1", not {arg!r}'
        )
    widths, attention, steps, batch = STAGES[side]
    config = get_cascade(side)
    config.seed = seed
    config.steps = steps
    config.batch_size = batch
    config.model_folder = MODEL_FOLDER
    config.ema_decay = 0.995  # a short training
    config.sample_every = 1000
    config.model.unet.block_out_channels = widths
    config.model.unet.cross_attention = attention
    config.model.text = True
    config.model.max_noise_level = 400
    config.model.noise_level = 100
    config.data.cache_folder = "runs/ablations/cache"
    config.data.num_clips = 4000
    config.data.reference_frame = "first"
    return config


def get_measurement(part: str, seed: int) -> ConfigDict:
    """The evaluation config of one part of an ablation, with the captions or clips and the noise of a seed."""
    config = get_evaluation()
    config.parts = (part,)
    config.seed = seed
    config.batch_size = 16
    return config


def get_sampling(seed: int) -> ConfigDict:
    """The evaluation config of an ablation that samples the embedded model: 32 captions, at the base frame rate."""
    config = get_measurement("prompts", seed)
    config.prompts = 32
    config.batch_size = 8
    config.sampling.temporal_factor = 1
    return config
