"""The classifier of the shapes world, trained on its attributes: an instrument of measurement, no part of a model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from videogen_jax.models.shapes_classifier import ShapesClassifier
from videogen_jax.stages.stage import Batch, Metrics, Params, build_network, to_unit


@dataclasses.dataclass(frozen=True)
class ClassifierStage:
    """Cross-entropy of each attribute.

    Attributes:
      classifier: fields of `ShapesClassifier`.
      noise: standard deviation of the noise that the clips are given, in [-1, 1], up to which is drawn for each clip:
        generated videos are not as clean as rendered ones, and features that break on a little noise measure just it.
    """

    classifier: Mapping[str, Any]
    noise: float = 0.1

    @property
    def network(self) -> ShapesClassifier:
        return build_network(ShapesClassifier, self.classifier, "config.model.classifier")

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        return {"shapes_classifier": self.network.init(rng, to_unit(batch["video"][:1]))["params"]}

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """batch: `video` uint8 `(B, T, R, R, 3)`, `labels` int32 `(B, attributes)`."""
        video, labels = to_unit(batch["video"]), batch["labels"]
        level_rng, noise_rng = jax.random.split(rng)
        level = self.noise * jax.random.uniform(level_rng, (len(video), 1, 1, 1, 1))
        video = video + level * jax.random.normal(noise_rng, video.shape)
        logits, _ = self.network.apply({"params": params["shapes_classifier"]}, video)
        losses = [
            optax.softmax_cross_entropy_with_integer_labels(of_one.astype(jnp.float32), labels[:, i]).mean()
            for i, of_one in enumerate(logits)
        ]
        right = jnp.stack([of_one.argmax(axis=-1) == labels[:, i] for i, of_one in enumerate(logits)], axis=-1)
        metrics = {"accuracy": right.mean(), "accuracy_all": right.all(axis=-1).mean()}
        return sum(losses), metrics

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        return {"truth": to_unit(batch["video"])}

    def parts(self) -> dict[str, tuple[str, dict]]:
        return {"shapes_classifier": ("shapes_classifier", {"_class_name": "ShapesClassifier", **self.classifier})}
