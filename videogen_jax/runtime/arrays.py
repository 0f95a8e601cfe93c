"""Conversions of frames and latents: value range and resolution."""

import jax
import jax.numpy as jnp


def to_unit(frames: jax.Array) -> jax.Array:
    """Convert uint8 frames in [0, 255] to float32 in [-1, 1]."""
    return frames.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(frames: jax.Array) -> jax.Array:
    """Convert frames in [-1, 1], which are clipped to that range, to uint8."""
    return jnp.round(jnp.clip(frames.astype(jnp.float32) * 127.5 + 127.5, 0.0, 255.0)).astype(jnp.uint8)


def resize(x: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """Resize images or latents by antialiased bilinear interpolation, the only resize filter of the cascade.

    Args:
      x: `(..., H, W, C)`.
      size: (h, w), or one number for both.

    Returns: `(..., h, w, C)`.
    """
    height, width = (size, size) if isinstance(size, int) else size
    shape = (*x.shape[:-3], height, width, x.shape[-1])
    return x if shape == x.shape else jax.image.resize(x, shape, "linear", antialias=True)
