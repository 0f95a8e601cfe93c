"""Pillow's resampling of 8-bit images as matrices, for images that are on a device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.runtime.arrays import cubic

# The filters: weight of a pixel at a distance, in pixels of the smaller image, and the distance where they end.
_FILTERS = {
    "box": (lambda x: ((x > -0.5) & (x <= 0.5)).astype(np.float64), 0.5),
    "bilinear": (lambda x: np.maximum(1.0 - np.abs(x), 0.0), 1.0),
    "bicubic": (lambda x: cubic(x, a=-0.5), 2.0),
}


@functools.cache
def pillow_weights(n: int, m: int, name: str) -> np.ndarray:
    """The matrix `(m, n)` float32 by which Pillow brings n pixels to m.

    The filter is widened where the image is made smaller, so that every pixel counts.

    Args:
      n, m: at least 1.
      name: "box", "bilinear" or "bicubic".
    """
    weight, support = _FILTERS[name]
    scale = n / m
    widened = max(scale, 1.0)
    centre = (np.arange(m) + 0.5) * scale
    first = np.maximum((centre - support * widened + 0.5).astype(int), 0)
    end = np.minimum((centre + support * widened + 0.5).astype(int), n)
    pixel = np.arange(n)
    inside = (pixel >= first[:, None]) & (pixel < end[:, None])
    weights = np.where(inside, weight((pixel - centre[:, None] + 0.5) / widened), 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def apply_weights(pixels: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Resize images as Pillow does: the columns, the rows, and whole numbers after each.

    Args:
      pixels: `(..., H, W, C)` float32, 0 to 255.
      rows, columns: `(h, H)` and `(w, W)`, from `pillow_weights`.

    Returns: `(..., h, w, C)` float32, whole numbers; within 1 of Pillow's, whose sums are of integers.
    """
    highest = jax.lax.Precision.HIGHEST
    for axes, weights in (("jw,...hwc->...hjc", columns), ("ih,...hwc->...iwc", rows)):
        pixels = jnp.einsum(axes, weights, pixels, precision=highest)
        pixels = jnp.clip(jnp.floor(pixels + 0.5), 0.0, 255.0)  # bicubic interpolation overshoots
    return pixels
