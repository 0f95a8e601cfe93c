"""Conversions of frames and latents: value range and resolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


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


def resize_antialiased(images: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """Resize images as Stable Video Diffusion does for its image encoder: a Gaussian blur, then bicubic interpolation.

    From n to m pixels, along each axis by itself:

    - the blur's standard deviation is (n / m - 1) / 2 pixels, at least 0.001 (none, where the image is enlarged); its
      kernel is cut off at about twice that on each side, and the image is mirrored at its border without repeating the
      outermost pixel;
    - the interpolation is bicubic with a = -0.75; the centres of the outermost pixels stay where they are
      ("align_corners"), and the outermost pixels are repeated beyond the border.

    Both are linear, so each axis is multiplied by one matrix, worked out in float64 while tracing. Do not replace it by
    `jax.image.resize` or Pillow: they align the outer edges of the outermost pixels instead of their centres, have
    a = -0.5, and widen the bicubic kernel instead of blurring before it.

    Args:
      images: `(..., H, W, C)`, at least 1 pixel high and wide.
      size: (h, w), or one number for both.

    Returns:
      `(..., h, w, C)` float32. Bicubic interpolation overshoots at edges, and the values are not clipped.

    Raises:
      ValueError: h or w is below 1.

    Source:
      `_resize_with_antialiasing` of diffusers' StableVideoDiffusionPipeline, which has it from kornia.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size is {height} x {width}: it must be at least 1 x 1")
    rows, columns = _blur_and_resize(images.shape[-3], height), _blur_and_resize(images.shape[-2], width)
    highest = jax.lax.Precision.HIGHEST  # the default on accelerators would round the weights to 8 bits
    return jnp.einsum("ih,...hwc,jw->...ijc", rows, images.astype(jnp.float32), columns, precision=highest)


@functools.cache
def _blur_and_resize(n: int, m: int) -> np.ndarray:
    """The matrix `(m, n)` float32 by which `resize_antialiased` brings n pixels to m."""
    sigma = max((n / m - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3)) // 2  # on each side of the centre
    offsets = np.arange(-taps, taps + 1)
    blur = np.exp(-0.5 * (offsets / sigma) ** 2)
    blur /= blur.sum()

    position = np.arange(m) * ((n - 1) / max(m - 1, 1))
    before = np.floor(position).astype(int)
    neighbours = before[:, None] + np.arange(-1, 3)  # (m, 4)
    weights = cubic(position[:, None] - neighbours)
    pixels = np.clip(neighbours, 0, n - 1)[:, :, None] + offsets  # (m, 4, taps), mirrored next
    period = max(2 * (n - 1), 1)
    pixels = n - 1 - np.abs(n - 1 - pixels % period)

    matrix = np.zeros((m, n))
    np.add.at(matrix, (np.arange(m)[:, None, None], pixels), weights[:, :, None] * blur)
    return matrix.astype(np.float32)


def cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Weight of a pixel at a distance (Keys 1981, eq. 15); a = -0.75 is PyTorch's."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
