"""Convolutions in another form against JAX's own, with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.models.layers import Upsample
from videogen_jax.models.ops.convolution import convolve, convolve_clips, convolve_upsampled

CLIPS, IMAGES = ("NDHWC", "DHWIO", "NDHWC"), ("NHWC", "HWIO", "NHWC")


def draw(seed, shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def output_and_gradients(loss, function, *args):
    """Compile `function` together with the gradients of the loss of its output by both arguments."""
    gradients = jax.grad(lambda *args: loss(function(*args)), (0, 1))
    return jax.jit(lambda *args: (function(*args), *gradients(*args)))(*args)


def assert_same(ours, plain, x, kernel):
    """Compare values, and both gradients of a sum that weights every output differently."""
    weights = draw(2, jax.eval_shape(plain, x, kernel).shape)
    sides = []
    for function in (ours, plain):
        sides.append(output_and_gradients(lambda output: (weights * output).sum(), function, x, kernel))
    for mine, other in zip(*sides, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=2e-6 * np.abs(other).max())


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

    def ours(x, k):
        numbers = jax.lax.conv_dimension_numbers(shape, kernel, CLIPS)  # as nn.Conv passes them
        return convolve_clips(x, k, strides, padding, lhs_dilation=(1, 1, 1), dimension_numbers=numbers)

    assert_same(ours, plain, draw(0, shape), draw(1, kernel))


def test_upsampled_images_are_convolved_without_upsampling():
    def plain(x, k):
        upsampled = x.repeat(2, axis=1).repeat(2, axis=2)
        return jax.lax.conv_general_dilated(upsampled, k, (1, 1), "SAME", dimension_numbers=IMAGES)

    def ours(x, k):
        return convolve_upsampled(x, k, 1, "SAME", dimension_numbers=IMAGES)

    assert_same(ours, plain, draw(0, (2, 5, 4, 3)), draw(1, (3, 3, 3, 6)))


@pytest.mark.parametrize(
    ("shape", "features", "strides"),
    [
        ((2, 2, 2, 6), 5, 1),
        ((2, 8, 8, 4), 128, 1),
        ((1, 16, 16, 3), 512, 1),
        ((1, 16, 16, 3), 4, 2),
        ((1, 9, 7, 3), 130, 1),
    ],
)
def test_patches_give_what_the_convolution_gives(shape, features, strides):
    """In float64: gradients are sums of thousands of terms of both signs, and in float32 what is left is rounding."""
    settings = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def both(convolution):
        return output_and_gradients(lambda output: jnp.sum(weights * output**2), convolution, x, kernel)

    with jax.enable_x64(True):
        x, kernel = draw(0, shape, np.float64), draw(1, (3, 3, shape[-1], features), np.float64)
        weights = draw(2, (features,), np.float64)
        ours = both(lambda x, kernel: convolve(x, kernel, (strides,) * 2, ((1, 1), (1, 1)), **settings))
        theirs = both(
            lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, (strides,) * 2, ((1, 1), (1, 1)), **settings)
        )
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == jnp.float64
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(2, 1, 1, 6), (1, 3, 5, 4), (2, 16, 8, 3)])
def test_the_upsampling_layer_gives_what_upsampling_and_convolving_give(shape):
    layer, x = Upsample(5), draw(0, shape)
    params = jax.tree.map(lambda leaf: draw(1, leaf.shape), jax.eval_shape(layer.init, jax.random.key(0), x))
    weights = draw(2, (5,))

    def upsampled(params, x):
        conv = params["params"]["conv"]
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        settings = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(x, conv["kernel"], (1, 1), ((1, 1), (1, 1)), **settings) + conv["bias"]

    def both(apply):
        return output_and_gradients(lambda output: jnp.sum(weights * output**2), apply, params, x)

    ours, theirs = both(layer.apply), both(upsampled)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-4)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-2)
