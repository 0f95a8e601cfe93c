"""The sampling steps of every stage of the embedded model's cascade.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/steps.py:steps=10 \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.arguments import SEED, Key, read_arguments
from configs.shapes.ablations.measurement import get_sampling


def get_config(arg: str = "") -> ConfigDict:
    args = read_arguments(arg, steps=Key(10), seed=SEED)
    config = get_sampling(args.seed)
    config.sampling.cascade.steps = args.steps
    return config
