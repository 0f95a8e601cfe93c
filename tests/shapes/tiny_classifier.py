"""A tiny untrained classifier of the shapes world, as a folder that the evaluation takes."""

from pathlib import Path

import jax
import numpy as np

from videogen_jax.shapes.classifier import ShapesClassifier
from videogen_jax.weights.folder import save_part

FIELDS = {"num_classes": [2, 3], "widths": [8, 8], "patch": 2, "features": 6, "num_frames": 4, "resolution": 16}


def write_tiny_classifier(folder: Path) -> str:
    """Writes it and returns the folder's path."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in FIELDS.items()}
    params = ShapesClassifier(**fields).init(jax.random.key(0), np.zeros((1, 4, 16, 16, 3)))["params"]
    config = {"_class_name": "ShapesClassifier", **FIELDS}
    save_part(folder, config, params, weights_name="diffusion_pytorch_model.safetensors", dtype="float32")
    return str(folder)
