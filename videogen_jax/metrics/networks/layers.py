"""Layers that the feature networks share. They are run, never trained: statistics of batch norms are parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by stored statistics: `(..., C)` -> `(..., C)`."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def parameter(name, init):
            return self.param(name, init, x.shape[-1:])

        scale, bias = parameter("scale", initializers.ones), parameter("bias", initializers.zeros)
        mean, var = parameter("running_mean", initializers.zeros), parameter("running_var", initializers.ones)
        factor = scale * jax.lax.rsqrt(var + self.eps)
        return x * factor + (bias - mean * factor)


def resize_bilinear(x: jax.Array, size: tuple[int, int], align_corners: bool = False) -> jax.Array:
    """Resize bilinearly without antialiasing: `(..., H, W, C)` -> `(..., h, w, C)`.

    It is `torch.nn.functional.interpolate(mode="bilinear", align_corners=...)`, by which the published numbers were
    measured; a resize with antialiasing would change them.

    Args:
      size: (h, w).
      align_corners: align the centres of the corner pixels; else the corners of the image.
    """
    shape = (*x.shape[:-3], *size, x.shape[-1])
    if not align_corners:
        return jax.image.resize(x, shape, "linear", antialias=False)
    before, after = jnp.asarray(x.shape[-3:-1], jnp.float32), jnp.asarray(size, jnp.float32)
    scale = (after - 1) / (before - 1)
    axes = (x.ndim - 3, x.ndim - 2)
    return jax.image.scale_and_translate(x, shape, axes, scale, 0.5 - 0.5 * scale, "linear", antialias=False)


def unit_range(frames: jax.Array) -> jax.Array:
    """Scale uint8 `[0, 255]` to float32 `[-1, 1]`."""
    return frames.astype(jnp.float32) / 127.5 - 1.0
