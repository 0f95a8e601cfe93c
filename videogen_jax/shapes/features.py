"""The features of the classifier of the shapes world, on which the shapes Fréchet distance is taken."""

import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.data.world import Extractor
from videogen_jax.runtime.arrays import resize, to_unit
from videogen_jax.shapes.classifier import ShapesClassifier, classifier_fields
from videogen_jax.stages.stage import Params, build_network
from videogen_jax.weights.folder import CONFIG_NAME, load_config, load_part


def load_shapes_classifier(path: str | os.PathLike) -> tuple[ShapesClassifier, Params]:
    """Load the exported classifier of a folder.

    Raises:
      ValueError: it is missing, or its weights do not fit its config.
    """
    config = load_config(path)
    network = build_network(ShapesClassifier, classifier_fields(config), str(Path(path) / CONFIG_NAME))
    clip = jnp.zeros((1, network.num_frames, network.resolution, network.resolution, 3))
    return network, load_part(path, jax.eval_shape(network.init, jax.random.key(0), clip)["params"])


def classifier_extractor(path: str) -> Extractor:
    """Return an extractor of `features` `(D,)` of videos, each reduced to the frames and the size of the network.

    Args:
      path: folder of the exported classifier.
    """
    network, params = load_shapes_classifier(path)

    @jax.jit
    def features(params, video):
        return network.apply({"params": params}, resize(to_unit(video), network.resolution))[1]

    def extract(videos: Sequence[np.ndarray], captions: Sequence[str]) -> list[dict[str, np.ndarray]]:
        clips = (evenly_spaced(video, network.num_frames) for video in videos)
        return [{"features": np.asarray(features(params, clip[None])[0])} for clip in clips]

    return extract


def evenly_spaced(video: np.ndarray, count: int) -> np.ndarray:
    """Return `count` frames from the first to the last, as evenly spaced as whole numbers allow."""
    return video[np.rint(np.linspace(0, len(video) - 1, count)).astype(int)]
