"""The setting that the trained ablations share, of which each changes one thing.

A cascade of latents of 4x4 and 8x8, 16 frames of 64x64 pixels, small enough to be trained from scratch many times over.
Only the video stages are trained: the frozen parts (text encoder, autoencoder, reference stage) are the embedded
model's. All runs read the same cached clips; the seed of a run sets its initial parameters, the order of its clips and
its noise. Whatever is not set here is as in configs/shapes/cascade.py.

The arguments of an ablation's config are the resolution of the stage and the seed: `resolution=8,seed=2`.
"""

from ml_collections import ConfigDict

from configs.arguments import SEED, Key, read_arguments
from configs.shapes.cascade import get_config as get_cascade

MODEL_FOLDER = "videogen_jax/embedded/shapes"

# resolution: (widths, levels with attention, steps, batch)
STAGES = {
    4: ((48, 96), (True, True), 2000, 8),
    8: ((48, 80), (False, True), 900, 4),
}


def get_setting(arg: str, resolutions: tuple[int, ...] = tuple(STAGES)) -> ConfigDict:
    """The training config of one stage of the setting.

    Args:
      arg: arguments, see above; the resolution is the first of `resolutions` where none is given.
      resolutions: of the stages that the ablation trains.
    """
    args = read_arguments(arg, resolution=Key(resolutions[0], resolutions), seed=SEED)
    widths, attention, steps, batch = STAGES[args.resolution]
    config = get_cascade(f"resolution={args.resolution}")
    config.seed = args.seed
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
