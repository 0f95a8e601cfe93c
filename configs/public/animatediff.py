"""Train AnimateDiff's motion modules, on a Stable Diffusion model that stays as it is, on your own videos.

    python -m videogen_jax.train --config configs/public/animatediff.py --workdir runs/motion \\
        --config.model_folder=stable-diffusion-v1-5/stable-diffusion-v1-5 \\
        --config.motion_adapter=guoyww/animatediff-motion-adapter-v1-5-3 --config.data.folder=data/mine/1.0.0

`animatediff.py:pia=1` trains PIA's, which also takes the clip's first frame; the adapter is then
openmmlab/PIA-condition-adapter. Other arguments, as in `animatediff.py:resolution=32`: see configs/public/common.py.
With config.motion_adapter="" the motion modules begin without effect.
"""

from ml_collections import ConfigDict

from configs.arguments import Key, read_arguments
from configs.public.common import fine_tuning, set_scheduler
from videogen_jax.stages.pia import PIAStage
from videogen_jax.stages.text_to_video import TextToVideoStage

MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
ADAPTERS = {False: "guoyww/animatediff-motion-adapter-v1-5-3", True: "openmmlab/PIA-condition-adapter"}


def get_config(arg: str = "") -> ConfigDict:
    own = [part for part in arg.split(",") if part.startswith("pia=")]
    pia = bool(read_arguments(",".join(own), pia=Key(0, (0, 1))).pia)
    rest = ",".join(part for part in arg.split(",") if part not in own)
    stage, kind = ("pia", PIAStage) if pia else ("text_to_video", TextToVideoStage)
    config = fine_tuning(rest, stage, kind, MODEL, side=32, num_frames=16, fps=8.0)
    config.motion_adapter = ADAPTERS[pia]
    config.optimizer.learning_rate = 1e-4
    config.optimizer.fixed = r"^(?!.*motion_modules)"  # the image model stays as it is
    config.model.unet.update(
        in_channels=9 if pia else 4,
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention=(True, True, True, False),
        num_heads=8,
        cross_attention_dim=768,
        temporal="motion_module",
        motion_max_frames=32,
        motion_mid_block=False,
    )
    set_scheduler(config, "linear", "epsilon")
    return config
