"""Temporal upsampling in latent space by bidirectional flow (VideoGen, section 3.3)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from videogen_jax.models.flow import TemporalUpsampler, warp
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, Params, Spec, Stage, build_network


@dataclasses.dataclass(frozen=True)
class TemporalStage(Stage):
    """Interpolation between frames of latents, trained on videos of a higher frame rate, without text.

    Attributes:
      upsampler: fields of `TemporalUpsampler`.
      factor: the upsampling factor in training; sampling may use any whose new frames fall on times seen in training.
      cycle_weight: weight of the error of warping the base frames into each other, which trains the flow directly.

    Both errors are measured in dB, as the logarithm of each clip's mean squared error, so that a slow clip, which any
    blending gets nearly right, counts as much as a fast one.
    """

    upsampler: Mapping[str, Any]
    factor: int = 4
    cycle_weight: float = 0.1

    name = "temporal"

    def __post_init__(self):
        if self.factor < 2:
            raise ValueError(f"config.model.factor is {self.factor}; it must be at least 2")

    @property
    def network(self) -> TemporalUpsampler:
        return build_network(TemporalUpsampler, self.upsampler, "config.model.upsampler")

    def input_spec(self, sizes: InputSizes) -> Spec:
        num_frames = max(sizes.num_frames, self.factor + 1)  # two base frames, and those between them
        shape = (num_frames, sizes.resolution, sizes.resolution, sizes.latent_channels)
        return {"latents": jax.ShapeDtypeStruct(shape, jnp.float16)}

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        frames = batch["latents"][:1, :: self.factor].astype(jnp.float32)
        return {"temporal_upsampler": self.network.init(rng, frames, self.factor)["params"]}

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """The log of the squared error of the new frames, plus `cycle_weight` times that of the warped base frames.

        Half of the clips are played backwards, as augmentation.

        Args:
          batch: `latents` `(B, n * factor + 1, h, w, C)`. Every `factor`-th frame is a base frame, which the network
            sees; it predicts the frames between.
        """
        truth = batch["latents"].astype(jnp.float32)
        if (truth.shape[1] - 1) % self.factor or truth.shape[1] <= self.factor:
            raise ValueError(f"config.data.num_frames is {truth.shape[1]}: it must be n * {self.factor} + 1")
        backwards = jax.random.bernoulli(rng, shape=(truth.shape[0], 1, 1, 1, 1))
        truth = jnp.where(backwards, truth[:, ::-1], truth)
        base = truth[:, :: self.factor]
        variables = {"params": params["temporal_upsampler"]}
        upsampled, aux = self.network.apply(variables, base, self.factor, return_aux=True)
        between = jnp.asarray([i for i in range(truth.shape[1]) if i % self.factor])
        error = upsampled[:, between] - truth[:, between]

        def flat(x):
            return x.reshape(-1, *x.shape[2:])

        first, second = flat(base[:, :-1]), flat(base[:, 1:])
        forward = warp(second, flat(aux.flow_01)) - first
        backward = warp(first, flat(aux.flow_10)) - second
        cycle = jnp.stack([forward, backward], axis=1).reshape(truth.shape[0], -1)
        linear = blend(base, self.factor)[:, between] - truth[:, between]
        l1 = jnp.mean(jnp.abs(error))
        metrics = {
            "l1": l1,
            "of_linear": l1 / jnp.mean(jnp.abs(linear)),
            "gain_db": (10 / math.log(10)) * (log_squared(linear) - log_squared(error)),
            "cycle": jnp.mean(jnp.abs(cycle)),
        }
        return log_squared(error) + self.cycle_weight * log_squared(cycle), metrics

    def upsample(self, params: Params, latents: jax.Array, factor: int) -> jax.Array:
        """Latents `(B, T, h, w, C)` -> `(B, (T - 1) * factor + 1, h, w, C)`; the base frames are not changed."""
        return self.network.apply({"params": params}, latents, factor)

    def warp(self, params: Params, latents: jax.Array, factor: int) -> jax.Array:
        """As `upsample`, but by warping along the flow alone: see `TemporalUpsampler.refine`."""
        return self.network.clone(refine=False).apply({"params": params}, latents, factor)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        truth = batch["latents"].astype(jnp.float32)
        base = truth[:, :: self.factor]
        upsampled = self.upsample(params["temporal_upsampler"], base, self.factor)
        return {"truth": truth, "upsampled": upsampled, "blended": blend(base, self.factor)}

    def parts(self) -> dict[str, tuple[str, dict]]:
        config = {"_class_name": "TemporalStage", "upsampler": self.upsampler, "factor": self.factor}
        return {"temporal_upsampler": ("temporal_upsampler", config)}


def log_squared(error: jax.Array) -> jax.Array:
    """`(B, ...)` -> the mean over B of the natural logarithm of the mean square; 1e-6 keeps it finite."""
    return jnp.mean(jnp.log(jnp.mean(error.reshape(error.shape[0], -1) ** 2, axis=1) + 1e-6))


def blend(latents: jax.Array, factor: int) -> jax.Array:
    """Linear blending `(B, T, ...)` -> `(B, (T - 1) * factor + 1, ...)`, the upsampler's baseline."""
    weights = (jnp.arange(factor) / factor).reshape(1, 1, factor, *(1,) * (latents.ndim - 2))
    pairs = (1.0 - weights) * latents[:, :-1, None] + weights * latents[:, 1:, None]
    frames = pairs.reshape(latents.shape[0], -1, *latents.shape[2:])
    return jnp.concatenate([frames, latents[:, -1:]], axis=1)
