"""A trained autoencoder as the other stages use it (Rombach et al. 2022)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from videogen_jax.models.autoencoder import AutoencoderKL
from videogen_jax.runtime.arrays import resize


@dataclasses.dataclass(frozen=True)
class FrozenAutoencoder:
    """A trained autoencoder as the other stages use it, with latents of unit variance.

    Attributes:
      network: its parameters are passed to `encode` and `decode`. An `AutoencoderKLTemporalDecoder` has no image
        decoder: `decode` then gives its video decoder each frame as a clip of its own.
      scaling_factor: brings latents to unit variance (Rombach et al. 2022, appendix G).
      shift_factor: subtracted before scaling, as in diffusers.
    """

    network: AutoencoderKL
    scaling_factor: float
    shift_factor: float = 0.0

    def encode(
        self, params: Mapping[str, Any], frames: jax.Array, size: int | tuple[int, int] | None = None
    ) -> jax.Array:
        """Frames to latents, the posterior's mean.

        Args:
          params: of the network.
          frames: `(..., H, W, 3)` in [-1, 1].
          size: (h, w) of the latents, or one number for both, to which the frames are first resized; None: as they are.

        Returns: `(..., h, w, C)` float32, of unit variance.
        """
        return (self.encode_unscaled(params, frames, size) - self.shift_factor) * self.scaling_factor

    def encode_unscaled(
        self, params: Mapping[str, Any], frames: jax.Array, size: int | tuple[int, int] | None = None
    ) -> jax.Array:
        """Frames to latents as the network has them: the posterior's mean, neither shifted nor scaled.

        Stable Video Diffusion is conditioned on these latents of its image, although it draws scaled ones.

        Args:
          params, frames, size: as of `encode`.

        Returns: `(..., h, w, C)` float32; `encode` gives `(latents - shift_factor) * scaling_factor`.
        """
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else size
            frames = resize(frames, (height * self.network.downsampling, width * self.network.downsampling))
        flat = frames.reshape(-1, *frames.shape[-3:])
        mean = self.network.apply({"params": params}, flat, method="encode").mean.astype(jnp.float32)
        return mean.reshape(*frames.shape[:-3], *mean.shape[1:])

    def unscale(self, latents: jax.Array) -> jax.Array:
        """Unit-variance latents -> latents as the network has them."""
        return latents / self.scaling_factor + self.shift_factor

    def decode(self, params: Mapping[str, Any], latents: jax.Array) -> jax.Array:
        """Latents `(..., h, w, C)` of unit variance -> frames `(..., H, W, 3)` in [-1, 1] (not clipped)."""
        flat = self.unscale(latents).reshape(-1, *latents.shape[-3:])
        frames = self.network.apply({"params": params}, flat, method="decode").astype(jnp.float32)
        return frames.reshape(*latents.shape[:-3], *frames.shape[1:])
