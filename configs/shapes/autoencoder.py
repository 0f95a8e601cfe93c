"""Autoencoder of the shapes world: 128x128 frames to 16x16x4 latents, and 32x32 to 4x4.

    python -m videogen_jax.train --config configs/shapes/autoencoder.py --workdir runs/shapes/autoencoder

It is trained in three runs, of which the second and third start from the autoencoder of the model folder:

- `frames=small`, the default: from scratch, on frames scaled down to a half and a quarter;
- `frames=full`: on frames at full size too;
- `part=decoder`: the decoder alone, on frames of all sizes, so that the latents, which later stages rely on, stay as
  they are.
"""

from ml_collections import ConfigDict

from configs.arguments import Key, read_arguments
from configs.base import get_base_config, stage_defaults
from videogen_jax.models.autoencoder import AutoencoderKL
from videogen_jax.stages.autoencoder import AutoencoderStage


def get_config(arg: str = "") -> ConfigDict:
    args = read_arguments(arg, frames=Key("small", ("small", "full")), part=Key("all", ("all", "decoder")))
    config = get_base_config()
    config.stage = "autoencoder"
    config.steps = 1500
    config.batch_size = 24
    config.optimizer.learning_rate = 5e-4
    config.ema_decay = 0.995
    config.model = stage_defaults(AutoencoderStage, autoencoder=AutoencoderKL)
    config.model.autoencoder.update(
        block_out_channels=(16, 24, 48, 96),
        layers_per_block=1,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    # (scale, images of a batch). Small frames hold as much to learn as large ones and cost a quarter each time, so the
    # first part of the training has them alone.
    config.model.scales = ((0.5, 8), (0.25, 24))
    config.model.mse_weight = 2.0
    config.model.kl_weight = 1e-4
    config.data.source = "shapes_frames"
    config.data.resolution = 128
    if args.part == "decoder" or args.frames == "full":
        config.init_from = config.get_ref("model_folder") + ""  # follows the folder until set
    if args.part == "decoder":
        config.steps = 2400
        config.batch_size = 6
        config.seed = 1
        config.optimizer.fixed = "^vae/(encoder|quant_conv)/"
        config.optimizer.learning_rate = 2e-4
        config.optimizer.b1 = 0.95  # a batch this small has few colours: average its gradients over more steps
        config.model.scales = ((1.0, 6), (0.5, 1), (0.25, 4))
        config.model.mse_weight = 10.0  # as much as the absolute error: few wrong pixels turn a small star into a blob
        config.data.seed = 6
        config.data.emphasis = ("small", "star")
    elif args.frames == "full":
        config.steps = 600
        config.batch_size = 8
        config.optimizer.learning_rate = 4e-4
        config.model.scales = ((1.0, 4), (0.5, 4), (0.25, 8))
    return config
