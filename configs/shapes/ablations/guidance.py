"""The guidance scale of the text in the first stage of the embedded model's cascade, which makes the motion.

    python -m videogen_jax.evaluate --config configs/shapes/ablations/guidance.py:guidance_scale=3.0 \
        --model videogen_jax/embedded/shapes
"""

from ml_collections import ConfigDict

from configs.arguments import SEED, Key, read_arguments
from configs.shapes.ablations.measurement import get_sampling


def get_config(arg: str = "") -> ConfigDict:
    args = read_arguments(arg, guidance_scale=Key(3.0), seed=SEED)
    config = get_sampling(args.seed)
    config.sampling.cascade_4 = ConfigDict({"guidance_scale": args.guidance_scale})
    return config
