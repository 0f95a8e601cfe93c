"""The video decoder of the shapes world: 16x16 latents to 128x128 frames, trained on video without text.

python -m videogen_jax.train --config configs/shapes/decoder.py --workdir runs/shapes/decoder
"""

from ml_collections import ConfigDict

from configs.arguments import read_arguments
from configs.base import get_base_config, stage_defaults
from videogen_jax.models.autoencoder import TemporalDecoder
from videogen_jax.models.discriminator import VideoDiscriminator
from videogen_jax.stages.decoder import DecoderStage


def get_config(arg: str = "") -> ConfigDict:
    read_arguments(arg)
    config = get_base_config()
    config.stage = "decoder"
    config.steps = 2900
    config.batch_size = 2
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_steps = 20
    config.optimizer.b1 = 0.95  # a batch this small has few colours: average its gradients over more steps
    config.ema_decay = 0.998
    config.sample_count = 1
    config.model = stage_defaults(DecoderStage, decoder=TemporalDecoder, discriminator=VideoDiscriminator)
    config.model.decoder.update(
        block_out_channels=(16, 24, 48, 96), layers_per_block=1, mid_block_layers=2, norm_num_groups=4
    )
    config.model.discriminator.update(channels=(16, 32, 64), norm_num_groups=8)
    config.model.difference_weight = 12.0
    config.model.perceptual_weight = 0.0
    # The adversarial term and the noise on the latents sharpen real video; here they cost more than they gain.
    config.model.adversarial_weight = 0.0
    config.model.latent_noise = 0.0
    config.data.source = "shapes_latents"
    config.data.cache_folder = "runs/shapes/cache"
    config.data.seed = 4
    config.data.num_clips = 5000
    config.data.emphasis = ("small", "star")  # their points are the first detail to be lost
    config.data.num_frames = 4
    config.data.window_rates = (1, 2, 4)
    config.data.resolution = 16
    config.data.text = False
    config.data.video_resolution = 128
    return config
