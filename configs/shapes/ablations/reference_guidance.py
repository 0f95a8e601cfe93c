"""The weight of the reference image in the lowest stage of the embedded model's cascade.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/reference_guidance.py:1.5 \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_sampling, split_argument


def get_config(arg: str = "1.5") -> ConfigDict:
    value, seed = split_argument(arg)
    config = get_sampling(seed)
    config.sampling.cascade_4 = ConfigDict({"reference_guidance_scale": float(value)})
    return config
