"""Convolutions in another form against JAX's own, with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.models.layers import convolve_clips, convolve_doubled

CLIPS, IMAGES = ("NDHWC", "DHWIO", "NDHWC"), ("NHWC", "HWIO", "NHWC")


def draw(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_same(way, plain, x, kernel):
    """Values, and both gradients of a sum that weighs every output otherwise."""
    weights = draw(2, jax.eval_shape(plain, x, kernel).shape)
    sides = []
    for function in (way, plain):
        value = jax.value_and_grad(lambda x, k, f=function: (weights * f(x, k)).sum(), (0, 1))
        sides.append((function(x, kernel), *value(x, kernel)[1]))
    for mine, other in zip(*sides, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=2e-6 * float(jnp.abs(other).max()))


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding"),
    [
        ((2, 5, 9, 8, 3), (3, 4, 4, 3, 7), (1, 2, 2), "SAME"),
        ((2, 4, 6, 6, 3), (3, 3, 3, 3, 2), (1, 1, 1), ((1, 1), (1, 1), (1, 1))),
        ((1, 1, 6, 6, 3), (3, 3, 3, 3, 2), (1, 1, 1), "SAME"),
    ],
)
def test_clips_are_convolved_as_in_three_dimensions(shape, kernel, strides, padding):
    def plain(x, k):
        return jax.lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=CLIPS)

    def way(x, k):
        numbers = jax.lax.conv_dimension_numbers(shape, kernel, CLIPS)  # as nn.Conv passes them
        return convolve_clips(x, k, strides, padding, lhs_dilation=(1, 1, 1), dimension_numbers=numbers)

    assert_same(way, plain, draw(0, shape), draw(1, kernel))


def test_doubled_images_are_convolved_without_doubling():
    def plain(x, k):
        doubled = x.repeat(2, axis=1).repeat(2, axis=2)
        return jax.lax.conv_general_dilated(doubled, k, (1, 1), "SAME", dimension_numbers=IMAGES)

    def way(x, k):
        return convolve_doubled(x, k, 1, "SAME", dimension_numbers=IMAGES)

    assert_same(way, plain, draw(0, (2, 5, 4, 3)), draw(1, (3, 3, 3, 6)))
