"""The embedded model's cascade as its model_index.json has it sampled, which the other ways are compared to.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/as_shipped.py \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_sampling, split_argument


def get_config(arg: str = "") -> ConfigDict:
    value, seed = split_argument(arg)
    if value:
        raise ValueError(f"the argument of this config is seed=NUMBER or nothing, not {arg!r}")
    return get_sampling(seed)
