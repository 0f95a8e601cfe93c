"""The guidance scale of the reference image in the first stage of the embedded model's cascade.

    python -m videogen_jax.evaluate --model videogen_jax/embedded/shapes \
        --config configs/shapes/ablations/reference_guidance.py:reference_guidance_scale=1.5
"""

from ml_collections import ConfigDict

from configs.arguments import SEED, Key, read_arguments
from configs.shapes.ablations.measurement import get_sampling


def get_config(arg: str = "") -> ConfigDict:
    args = read_arguments(arg, reference_guidance_scale=Key(1.5), seed=SEED)
    config = get_sampling(args.seed)
    config.sampling.cascade_4 = ConfigDict({"reference_guidance_scale": args.reference_guidance_scale})
    return config
