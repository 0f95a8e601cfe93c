"""The embedded model's cascade as its model_index.json has it sampled, which the other ways are compared to.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/as_shipped.py \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.shapes.ablations.setting import get_sampling, seed_argument


def get_config(arg: str = "") -> ConfigDict:
    return get_sampling(seed_argument(arg))
