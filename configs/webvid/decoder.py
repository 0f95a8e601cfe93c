"""The video decoder at the paper's scale: 64x64 latents to 512x512 frames, trained on unlabelled videos.

    python -m videogen_jax.train --config configs/webvid/decoder.py --workdir runs/webvid/decoder \\
        --config.model_folder=stable-diffusion-v1-5 --config.data.corpus.folder=videos

The arguments are `corpus`, a kind of corpus (configs/webvid/corpora.py), and `hardware` (configs/webvid/hardware.py):
`decoder.py:corpus=csv,hardware=v5e`. Training starts from the image decoder of `model_folder`.
"""

from ml_collections import ConfigDict

from configs.arguments import read_arguments
from configs.base import get_base_config, stage_defaults
from configs.webvid.corpora import corpus_key, get_videos_data
from configs.webvid.hardware import HARDWARE_KEY, set_hardware
from videogen_jax.models.autoencoder import TemporalDecoder
from videogen_jax.models.discriminator import VideoDiscriminator
from videogen_jax.stages.decoder import DecoderStage


def get_config(arg: str = "") -> ConfigDict:
    args = read_arguments(arg, corpus=corpus_key("folder"), hardware=HARDWARE_KEY)
    config = get_base_config()
    config.stage = "decoder"
    config.steps = 100_000
    config.batch_size = 16
    config.sample_count = 1
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 1000
    config.optimizer.b1 = 0.95
    config.model_folder = "stable-diffusion-v1-5"
    config.model = stage_defaults(DecoderStage, decoder=TemporalDecoder, discriminator=VideoDiscriminator)
    config.model.decoder.update(use_post_quant_conv=True, remat=True)
    config.model.difference_weight = 10.0
    config.model.perceptual_weight = 0.0  # 0.1 with config.perceptual_weights
    config.model.adversarial_weight = 0.05
    config.model.latent_noise = 0.05
    # the frame rates of generated videos, before and after temporal upsampling
    config.data = get_videos_data(args.corpus, resolution=64, num_frames=8, fps=(8.0, 15.0, 30.0))
    config.data.crop = config.data.flip = True
    config.example = ConfigDict({"num_frames": 8})
    set_hardware(config, args.hardware, "decoder", spread=False)
    if args.hardware is not None:
        config.model.discriminator.dtype = "bfloat16"
    return config
