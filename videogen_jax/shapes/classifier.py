"""The classifier of the shapes world: a network trained on its attributes, whose features distances are measured in.

It is for evaluation and no part of a model.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from videogen_jax.models.layers import group_norm
from videogen_jax.models.ops.convolution import convolve_clips
from videogen_jax.models.partitioning import constrain
from videogen_jax.runtime.arrays import to_unit
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, Params, Spec, Stage, build_network


class ShapesClassifier(nn.Module):
    """A small 3D convolutional network that reads off clips the attributes that their captions name.

    Attributes:
      num_classes: number of classes of each attribute.
      widths: of the 3x3x3 convolutions; max pooling after each halves time, height and width. They have no strides: the
        gradient of a strided convolution in three dimensions is slow on a CPU.
      patch: side of the patches of pixels that the first layer embeds.
      features: size of the layer before the logits.
      num_frames, resolution: of its clips.
    """

    num_classes: tuple[int, ...]
    widths: tuple[int, ...] = (24, 48, 64)
    patch: int = 4
    features: int = 96
    num_frames: int = 8
    resolution: int = 64
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        """video: `(B, num_frames, resolution, resolution, 3)` in [-1, 1].

        Returns: for each attribute its logits `(B, classes)`, and the features `(B, features)`.

        Raises:
          ValueError: for a video of another size, or a size that patches and halving do not divide.
        """
        halvings = 2 ** len(self.widths)
        if self.num_frames % halvings or self.resolution % (halvings * self.patch):
            raise ValueError(
                f"{len(self.widths)} widths take num_frames divisible by {halvings} and a resolution divisible by "
                f"{halvings * self.patch}, not {self.num_frames} and {self.resolution}"
            )
        size = (self.num_frames, self.resolution, self.resolution, 3)
        if video.shape[1:] != size:
            raise ValueError(f"the shapes classifier takes clips of {size}, not {video.shape[1:]}")
        b, t, side, p = len(video), self.num_frames, self.resolution // self.patch, self.patch
        x = video.reshape(b, t, side, p, side, p, 3).swapaxes(3, 4).reshape(b, t, side, side, 3 * p * p)
        x = nn.relu(nn.Dense(self.widths[0], dtype=self.dtype, name="patches")(x))
        for i, width in enumerate(self.widths):
            conv = nn.Conv(
                width, (3, 3, 3), padding=1, dtype=self.dtype, conv_general_dilated=convolve_clips, name=f"conv_{i}"
            )
            x = conv(x)
            x = nn.relu(group_norm(8, 1e-6, self.dtype, f"norm_{i}")(x))
            t, side = t // 2, side // 2
            x = x.reshape(b, t, 2, side, 2, side, 2, width).max(axis=(2, 4, 6))
        x = constrain(x, "batch", "whole", "whole", "whole", "whole")  # before the reshape: see `constrain`
        x = x.reshape(x.shape[0], -1)  # no pooling over positions: where a thing moves to is an attribute
        features = nn.Dense(self.features, dtype=self.dtype, name="features")(x)
        logits = nn.Dense(sum(self.num_classes), dtype=self.dtype, name="logits")(nn.relu(features))
        ends = [sum(self.num_classes[: i + 1]) for i in range(len(self.num_classes))]
        return jnp.split(logits, ends[:-1], axis=-1), features


def classifier_fields(config: Mapping[str, object]) -> dict[str, object]:
    """Fields of `ShapesClassifier` in a part's `config.json`."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


@dataclasses.dataclass(frozen=True)
class ClassifierStage(Stage):
    """Training of the classifier by the cross-entropy of each attribute.

    Attributes:
      classifier: fields of `ShapesClassifier`.
      noise: highest standard deviation of the noise added to clips in [-1, 1]; each clip's is drawn uniformly below it.
        Generated videos are not as clean as rendered ones, and distances must not measure a little noise alone.
    """

    classifier: Mapping[str, Any]
    noise: float = 0.1

    name = "classifier"

    @property
    def network(self) -> ShapesClassifier:
        return build_network(ShapesClassifier, self.classifier, "config.model.classifier")

    def input_spec(self, sizes: InputSizes) -> Spec:
        del sizes  # the network takes clips of one size
        num_frames, side = self.network.num_frames, self.network.resolution
        return {
            "video": jax.ShapeDtypeStruct((num_frames, side, side, 3), jnp.uint8),
            "labels": jax.ShapeDtypeStruct((len(self.network.num_classes),), jnp.int32),
        }

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
            optax.softmax_cross_entropy_with_integer_labels(attribute.astype(jnp.float32), labels[:, i]).mean()
            for i, attribute in enumerate(logits)
        ]
        correct = jnp.stack([attribute.argmax(axis=-1) == labels[:, i] for i, attribute in enumerate(logits)], axis=-1)
        metrics = {"accuracy": correct.mean(), "accuracy_all": correct.all(axis=-1).mean()}
        return sum(losses), metrics

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        return {"truth": to_unit(batch["video"])}

    def parts(self) -> dict[str, tuple[str, dict]]:
        return {"shapes_classifier": ("shapes_classifier", {"_class_name": "ShapesClassifier", **self.classifier})}
