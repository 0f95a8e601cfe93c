"""The video decoder at the paper's scale: 64x64 latents to 512x512 frames, trained on unlabelled videos.

    python -m videogen_jax.train --config configs/webvid/decoder.py --workdir runs/webvid/decoder \\
        --config.model_folder=stable-diffusion-v1-5 --config.data.corpus.folder=videos

The argument is the kind of corpus (configs/webvid/corpora.py), the hardware (configs/webvid/hardware.py), or both:
"csv,v5e". It starts from the image decoder of `model_folder`.
"""

from ml_collections import ConfigDict

from configs.base import get_base_config
from configs.webvid.corpora import get_videos_data
from configs.webvid.hardware import set_hardware, split_argument


def get_config(arg: str = "folder") -> ConfigDict:
    corpora, hardware = split_argument(arg)
    corpus = ",".join(corpora) or "folder"
    config = get_base_config()
    config.stage = "decoder"
    config.steps = 100_000
    config.batch_size = 16
    config.sample_count = 1
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 1000
    config.optimizer.b1 = 0.95
    config.model_folder = "stable-diffusion-v1-5"
    config.model = ConfigDict()
    config.model.decoder = ConfigDict({"use_post_quant_conv": True, "remat": True})
    config.model.discriminator = ConfigDict()
    config.model.difference_weight = 10.0
    config.model.perceptual_weight = 0.0  # 0.1 with config.perceptual_weights
    config.model.adversarial_weight = 0.05
    config.model.latent_noise = 0.05
    # the rates at which videos are generated, before and after upsampling
    config.data = get_videos_data(corpus, resolution=64, num_frames=8, fps=(8.0, 15.0, 30.0))
    config.data.crop = config.data.flip = True
    config.example = ConfigDict({"num_frames": 8})
    set_hardware(config, hardware, "decoder", spread=False)
    if hardware is not None:
        config.model.discriminator.dtype = "bfloat16"
    return config
