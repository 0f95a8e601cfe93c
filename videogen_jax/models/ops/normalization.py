"""Group and layer normalisation in float32, in the forms that XLA's CPU backend computes fast."""

import functools
import math

import jax
import jax.numpy as jnp


def normalize_groups(x: jax.Array, groups: int, eps: float, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Normalise each group of channels over all positions (GroupNorm, Wu and He 2018), in two passes.

    Summing each channel over its positions before the channels of a group are joined keeps the reductions contiguous,
    which on a CPU makes it two to three times as fast as `flax.linen.GroupNorm`.

    Args:
      x: `(N, ..., C)` float32.
      groups: number of groups, a divisor of C.
      eps: added to the variance.
      scale, bias: `(C,)`.

    Returns: `(N, ..., C)` float32.
    """
    channels = x.shape[-1]
    positions = tuple(range(1, x.ndim - 1))
    count = math.prod(x.shape[1:-1]) * (channels // groups)

    def group_mean(y: jax.Array) -> jax.Array:
        """`(N, ..., C)` -> `(N, C)`, each channel with the mean of its group."""
        sums = y.sum(positions).reshape(-1, groups, channels // groups).sum(-1)
        return jnp.repeat(sums / count, channels // groups, axis=1)

    def over_positions(y: jax.Array) -> jax.Array:
        return jnp.expand_dims(y, positions)

    centred = x - over_positions(group_mean(x))
    factor = jax.lax.rsqrt(group_mean(jnp.square(centred)) + eps) * scale
    return centred * over_positions(factor) + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalize_channels(x: jax.Array, eps: float, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Normalise over the last axis (LayerNorm, Ba et al. 2016, eq. 4), in two passes.

    The backward pass is written out: XLA's CPU backend fuses the derived one into sums over positions that recompute
    everything for each channel, which takes seven times as long at 4,096 positions of 320 channels.

    Args:
      x: `(..., C)` float32.
      eps: added to the variance.
      scale, bias: `(C,)` float32.

    Returns: `(..., C)` float32.
    """
    return _standardize(x, eps)[0] * scale + bias


def _standardize(x: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    """x `(..., C)` with zero mean and unit variance, and the factor `(..., 1)` that it was multiplied by."""
    centred = x - x.mean(-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return centred * factor, factor


def _normalize_channels_forward(x, eps, scale, bias):
    normal, factor = _standardize(x, eps)
    return normal * scale + bias, (normal, factor, scale)


def _normalize_channels_backward(eps, residuals, grad):
    del eps
    normal, factor, scale = residuals
    inner = grad * scale
    projected = normal * (inner * normal).mean(-1, keepdims=True)
    x_grad = factor * (inner - inner.mean(-1, keepdims=True) - projected)
    positions = tuple(range(grad.ndim - 1))
    return x_grad, (grad * normal).sum(positions), grad.sum(positions)


normalize_channels.defvjp(_normalize_channels_forward, _normalize_channels_backward)
