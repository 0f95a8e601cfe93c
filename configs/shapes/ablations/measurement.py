"""What the evaluation configs of the ablations share. Reading them takes no JAX, unlike the trained ones."""

from ml_collections import ConfigDict

from configs.shapes.evaluate import get_config as get_evaluation


def get_measurement(part: str, seed: int) -> ConfigDict:
    """The evaluation config of one part of a model, whose seed draws the captions or clips and the noise."""
    config = get_evaluation()
    config.parts = (part,)
    config.seed = seed
    config.batch_size = 16
    return config


def get_sampling(seed: int) -> ConfigDict:
    """The evaluation config of an ablation that samples the embedded model: 32 captions, at the base frame rate."""
    config = get_measurement("prompts", seed)
    config.prompts = 32
    config.batch_size = 8
    config.sampling.temporal_factor = 1
    return config
