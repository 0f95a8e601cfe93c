"""The embedded model sampled with the settings of its model_index.json: the baseline of the other sampling settings.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/as_shipped.py \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.arguments import SEED, read_arguments
from configs.shapes.ablations.measurement import get_sampling


def get_config(arg: str = "") -> ConfigDict:
    return get_sampling(read_arguments(arg, seed=SEED).seed)
