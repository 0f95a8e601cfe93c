"""Evaluation of a model of the shapes world.

    python -m videogen_jax.evaluate --config configs/shapes/evaluate.py --model runs/shapes/model

Parts one at a time: `--config.parts='("decoder",)'`. How videos are sampled: configs/evaluation.py.
"""

from ml_collections import ConfigDict

from configs.evaluation import get_evaluation_config


def get_config() -> ConfigDict:
    config = get_evaluation_config()
    config.world = "shapes"
    config.parts = ("prompts", "temporal", "decoder", "autoencoder")

    config.prompts = 64
    config.seeds = 1  # videos of each prompt
    config.weights.shapes_classifier = "embedded/shapes_classifier"  # for the shapes Fréchet distance; a folder, or ""
    config.real_clips = 256  # rendered clips that the Fréchet distance compares with

    config.clips = 32  # ground-truth clips for the other parts
    config.frame_batch = 16  # frames that the autoencoder encodes at once
    config.factors = ()  # of temporal upsampling; () for all that the model supports
    config.rates = (1, 2)  # frame rates at which the video decoder is measured, as multiples of the base rate
    return config
