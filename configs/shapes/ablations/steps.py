"""The sampling steps of every stage of the embedded model's cascade.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/steps.py:10 \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_sampling, split_argument


def get_config(arg: str = "10") -> ConfigDict:
    value, seed = split_argument(arg)
    config = get_sampling(seed)
    config.sampling.cascade.steps = int(value)
    return config
