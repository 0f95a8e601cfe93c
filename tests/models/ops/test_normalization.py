"""The written-out gradient of layer normalisation, and group normalisation against Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.models.ops.normalization import normalize_channels, normalize_groups


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_same(ours, plain, *args):
    """Compare values, and the gradients of a sum that weights every output differently."""
    weights = draw(9, *args[0].shape)
    sides = []
    for function in (ours, plain):
        gradients = jax.grad(lambda *args, f=function: (weights * f(*args)).sum(), (0, 1, 2))
        sides.append(jax.jit(lambda *args, f=function, g=gradients: (f(*args), *g(*args)))(*args))
    for one, other in zip(*sides, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=4e-6 * np.abs(other).max())


def test_channels_have_the_values_and_gradients_of_the_definition():
    def plain(x, scale, bias):
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias

    def ours(x, scale, bias):
        return normalize_channels(x, 1e-5, scale, bias)

    assert_same(ours, plain, 3 + draw(0, 2, 5, 16), draw(1, 16), draw(2, 16))


def test_groups_have_the_values_and_gradients_of_flax():
    def plain(x, scale, bias):
        layer = nn.GroupNorm(4, epsilon=1e-5, use_fast_variance=False)
        return layer.apply({"params": {"scale": scale, "bias": bias}}, x)

    def ours(x, scale, bias):
        return normalize_groups(x, 4, 1e-5, scale, bias)

    assert_same(ours, plain, 3 + draw(0, 2, 3, 4, 16), draw(1, 16), draw(2, 16))
