"""Fine-tune ModelScope's text-to-video model, or ZeroScope, on your own videos.

    python -m videogen_jax.train --config configs/public/modelscope.py --workdir runs/modelscope \\
        --config.model_folder=ali-vilab/text-to-video-ms-1.7b --config.data.folder=data/mine/1.0.0

Arguments, as in `modelscope.py:resolution=40,hardware=h100`: see configs/public/common.py.
"""

from ml_collections import ConfigDict

from configs.public.common import fine_tuning, set_scheduler
from videogen_jax.stages.text_to_video import TextToVideoStage

MODEL = "ali-vilab/text-to-video-ms-1.7b"


def get_config(arg: str = "") -> ConfigDict:
    config = fine_tuning(arg, "text_to_video", TextToVideoStage, MODEL, side=32, num_frames=16, fps=8.0)
    config.model.unet.update(
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention=(True, True, True, False),
        num_heads=(5, 10, 20, 20),
        cross_attention_dim=1024,
        use_linear_projection=True,
        temporal="temporal_transformer",
    )
    set_scheduler(config, "scaled_linear", "epsilon")
    config.model.set_alpha_to_one = False
    return config
