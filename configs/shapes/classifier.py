"""Classifier of the shapes world, on whose features the shapes Fréchet distance is taken.

    python -m videogen_jax.train --config configs/shapes/classifier.py --workdir runs/shapes/classifier
    python -m videogen_jax.export --config configs/shapes/classifier.py --workdir runs/shapes/classifier \
        --output runs/shapes/measures

It is trained on clips of both splits: as a measuring instrument it must know all that the model may be asked for,
held-out triples included.
"""

from ml_collections import ConfigDict

from configs.arguments import read_arguments
from configs.base import get_base_config, stage_defaults
from videogen_jax.shapes.classifier import ClassifierStage, ShapesClassifier


def get_config(arg: str = "") -> ConfigDict:
    read_arguments(arg)
    config = get_base_config()
    config.stage = "classifier"
    config.steps = 3000
    config.batch_size = 32
    config.ema_decay = 0.995
    config.optimizer.learning_rate = 2e-3
    config.model = stage_defaults(ClassifierStage, classifier=ShapesClassifier)
    config.model.classifier.update(
        num_classes=(2, 8, 4, 20, 4, 3),  # size, colour, shape, motion, background's tone and pattern
        widths=(24, 48, 64),
        features=96,
        num_frames=8,
        resolution=64,
    )
    config.model.noise = 0.1
    config.data.source = "shapes_labels"
    config.data.split = "all"
    config.data.num_frames = config.model.classifier.get_ref("num_frames")
    config.data.resolution = config.model.classifier.get_ref("resolution")
    return config
