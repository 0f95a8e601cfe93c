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
    """Frames between frames of latents, learned from videos at a higher rate; no text is needed.

    Attributes:
      upsampler: fields of `TemporalUpsampler`.
      factor: the upsampling factor in training; sampling may take any that puts frames at times it has seen.
      cycle_weight: weight of the warping error between the given frames themselves, which teaches the flow directly.

    Both errors are taken in decibels' measure, the logarithm of each clip's mean squared error: a slow clip, which any
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
        """batch: `latents` `(B, n * factor + 1, h, w, C)`; every `factor`-th frame is given, the others are sought.

        The logarithm of the squared error of the frames between, plus `cycle_weight` times that of each given frame
        warped from its neighbour. Half of the clips are played backwards, which are clips as good as the others.
        """
        truth = batch["latents"].astype(jnp.float32)
        if (truth.shape[1] - 1) % self.factor or truth.shape[1] <= self.factor:
            raise ValueError(f"config.data.num_frames is {truth.shape[1]}: it must be n * {self.factor} + 1")
        backwards = jax.random.bernoulli(rng, shape=(truth.shape[0], 1, 1, 1, 1))
        truth = jnp.where(backwards, truth[:, ::-1], truth)
        given = truth[:, :: self.factor]
        variables = {"params": params["temporal_upsampler"]}
        made, aux = self.network.apply(variables, given, self.factor, return_aux=True)
        between = jnp.asarray([i for i in range(truth.shape[1]) if i % self.factor])
        error = made[:, between] - truth[:, between]

        def flat(x):
            return x.reshape(-1, *x.shape[2:])

        first, second = flat(given[:, :-1]), flat(given[:, 1:])
        there = warp(second, flat(aux.flow_01)) - first
        back = warp(first, flat(aux.flow_10)) - second
        cycle = jnp.stack([there, back], axis=1).reshape(truth.shape[0], -1)
        linear = blend(given, self.factor)[:, between] - truth[:, between]
        l1 = jnp.mean(jnp.abs(error))
        metrics = {
            "l1": l1,
            "of_linear": l1 / jnp.mean(jnp.abs(linear)),
            "gain_db": (10 / math.log(10)) * (log_squared(linear) - log_squared(error)),
            "cycle": jnp.mean(jnp.abs(cycle)),
        }
        return log_squared(error) + self.cycle_weight * log_squared(cycle), metrics

    def upsample(self, params: Params, latents: jax.Array, factor: int) -> jax.Array:
        """Latents `(B, T, h, w, C)` -> `(B, (T - 1) * factor + 1, h, w, C)`; the given frames stay as they are."""
        return self.network.apply({"params": params}, latents, factor)

    def warp(self, params: Params, latents: jax.Array, factor: int) -> jax.Array:
        """As `upsample`, by the flow alone: see `TemporalUpsampler.refine`."""
        return self.network.clone(refine=False).apply({"params": params}, latents, factor)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        truth = batch["latents"].astype(jnp.float32)
        given = truth[:, :: self.factor]
        made = self.upsample(params["temporal_upsampler"], given, self.factor)
        return {"truth": truth, "upsampled": made, "blended": blend(given, self.factor)}

    def parts(self) -> dict[str, tuple[str, dict]]:
        config = {"_class_name": "TemporalStage", "upsampler": self.upsampler, "factor": self.factor}
        return {"temporal_upsampler": ("temporal_upsampler", config)}


def log_squared(error: jax.Array) -> jax.Array:
    """`(B, ...)` -> the mean over B of the natural logarithm of the mean square, which 1e-6 keeps finite."""
    return jnp.mean(jnp.log(jnp.mean(error.reshape(error.shape[0], -1) ** 2, axis=1) + 1e-6))


def blend(latents: jax.Array, factor: int) -> jax.Array:
    """Linear blending `(B, T, ...)` -> `(B, (T - 1) * factor + 1, ...)`: what the upsampler has to beat."""
    weights = (jnp.arange(factor) / factor).reshape(1, 1, factor, *(1,) * (latents.ndim - 2))
    pairs = (1.0 - weights) * latents[:, :-1, None] + weights * latents[:, 1:, None]
    frames = pairs.reshape(latents.shape[0], -1, *latents.shape[2:])
    return jnp.concatenate([frames, latents[:, -1:]], axis=1)
