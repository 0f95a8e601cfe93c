"""Frames and latents as arrays: their ranges and their sizes."""

import jax
import jax.numpy as jnp


def to_unit(frames: jax.Array) -> jax.Array:
    """uint8 frames in [0, 255] -> float32 in [-1, 1]."""
    return frames.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(frames: jax.Array) -> jax.Array:
    """Frames in [-1, 1] (clipped) -> uint8."""
    return jnp.round(jnp.clip(frames.astype(jnp.float32) * 127.5 + 127.5, 0.0, 255.0)).astype(jnp.uint8)


def resize(x: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """Antialiased bilinear resize of the two axes before the last: `(..., H, W, C)` -> `(..., h, w, C)`.

    size: (h, w), or one number for both. The one filter by which frames and latents change resolution anywhere in the
    cascade.
    """
    height, width = (size, size) if isinstance(size, int) else size
    shape = (*x.shape[:-3], height, width, x.shape[-1])
    return x if shape == x.shape else jax.image.resize(x, shape, "linear", antialias=True)
