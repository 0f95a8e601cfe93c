"""Fine-tune Stable Video Diffusion, by its own objective, on your own videos.

    python -m videogen_jax.train --config configs/public/svd.py --workdir runs/svd \\
        --config.model_folder=stabilityai/stable-video-diffusion-img2vid --config.data.folder=data/mine/1.0.0

Arguments, as in `svd.py:resolution=40,hardware=h100`: see configs/public/common.py. The clips are squares; the first
frame of each is its reference image.
"""

from ml_collections import ConfigDict

from configs.public.common import fine_tuning, set_scheduler
from videogen_jax.stages.image_to_video import ImageToVideoStage

MODEL = "stabilityai/stable-video-diffusion-img2vid"


def get_config(arg: str = "") -> ConfigDict:
    config = fine_tuning(arg, "image_to_video", ImageToVideoStage, MODEL, side=64, num_frames=14, fps=7.0)
    config.model.unet.update(
        in_channels=8,
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention=(True, True, True, False),
        num_heads=(5, 10, 20, 20),
        cross_attention_dim=1024,
        use_linear_projection=True,
        down_norm_eps=(1e-6, 1e-6, 1e-6, 1e-5),
        up_norm_eps=1e-6,
        added_numbers_dim=256,
        temporal="spatio_temporal",
    )
    set_scheduler(config, "karras", "v_prediction")
    return config
