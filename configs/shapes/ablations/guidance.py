"""The weight of the text in the lowest stage of the embedded model's cascade, which makes the motion.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/guidance.py:3.0 \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_sampling, split_argument


def get_config(arg: str = "3.0") -> ConfigDict:
    value, seed = split_argument(arg)
    config = get_sampling(seed)
    config.sampling.cascade_4 = ConfigDict({"guidance_scale": float(value)})
    return config
