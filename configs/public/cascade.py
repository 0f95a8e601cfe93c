"""Train a stage of VideoGen's cascade from a public video model.

    python -m videogen_jax.train --config configs/public/cascade.py --workdir runs/cascade_32 \\
        --config.model_folder=ali-vilab/text-to-video-ms-1.7b --config.data.folder=data/mine/1.0.0

The UNet is that of `config.init_from`, which follows `config.model_folder` until set, and so are its fields. Of Stable
Diffusion with a `config.motion_adapter` it is AnimateDiff's. The frozen parts, the text encoder among them, are those
of `config.model_folder`. Stable Video Diffusion has no text encoder: with it as `config.init_from`, the model folder is
one whose text states are as wide, Stable Diffusion 2's.

Arguments, as in `cascade.py:resolution=32,hardware=h100`: see configs/public/common.py.
"""

from ml_collections import ConfigDict

from configs.public.common import fine_tuning
from videogen_jax.stages.cascade import CascadeStage

MODEL = "ali-vilab/text-to-video-ms-1.7b"


def get_config(arg: str = "") -> ConfigDict:
    config = fine_tuning(arg, "cascade", CascadeStage, MODEL, side=32, num_frames=16, fps=8.0)
    config.optimizer.learning_rate = 5e-5
    config.model.schedule.update(name="scaled_linear", rescale_zero_terminal_snr=True)
    return config
