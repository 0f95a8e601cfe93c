"""Fine-tune I2VGen-XL on your own videos.

    python -m videogen_jax.train --config configs/public/i2vgen_xl.py --workdir runs/i2vgen_xl \\
        --config.model_folder=ali-vilab/i2vgen-xl --config.data.folder=data/mine/1.0.0

Arguments, as in `i2vgen_xl.py:resolution=40,hardware=h100`: see configs/public/common.py. The data set is to be
prepared with this model's folder, whose text states are not those of Stable Diffusion's. The first frame of a clip is
its reference image.
"""

from ml_collections import ConfigDict

from configs.public.common import fine_tuning, set_scheduler
from videogen_jax.models.i2vgen import I2VGenXLUNet
from videogen_jax.stages.i2vgen_xl import I2VGenXLStage

MODEL = "ali-vilab/i2vgen-xl"


def get_config(arg: str = "") -> ConfigDict:
    config = fine_tuning(arg, "i2vgen_xl", I2VGenXLStage, MODEL, side=64, num_frames=16, fps=8.0, network=I2VGenXLUNet)
    config.model.unet.update(
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention=(True, True, True, False),
    )
    set_scheduler(config, "cosine", "v_prediction", rescale_zero_terminal_snr=True)
    return config
