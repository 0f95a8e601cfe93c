"""FLOPs counted in a jaxpr, against formulas and XLA's own count."""

import functools

import jax
import jax.numpy as jnp
import pytest

from videogen_jax.training.flops import count_flops


def counted(function, *args, platform="tpu"):
    return count_flops(jax.make_jaxpr(function)(*args).jaxpr, platform)


A, B = jnp.ones((3, 8, 16)), jnp.ones((3, 16, 32))


def test_products_and_convolutions_agree_with_xla():
    x, kernel = jnp.ones((2, 9, 9, 8)), jnp.ones((3, 3, 4, 6))  # two groups of channels
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(2, 2),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    assert counted(jnp.matmul, A, B) == 2 * 3 * 8 * 16 * 32
    for function, args in ((jnp.matmul, (A, B)), (convolve, (x, kernel))):
        assert counted(function, *args) == jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


def test_a_loop_counts_as_often_as_it_runs():
    def looped(a, b):
        return jax.lax.scan(lambda sum, _: (sum + a @ b, None), jnp.zeros((3, 8, 32)), length=5)[0]

    assert counted(looped, A, B) == 5 * counted(jnp.matmul, A, B)


def test_what_is_computed_again_counts_again():
    def loss(a, b):
        return jnp.sum(jnp.sin(a @ b) ** 2)

    once = counted(jnp.matmul, A, B)
    assert counted(jax.grad(loss, argnums=(0, 1)), A, B) == 3 * once
    assert counted(jax.grad(jax.checkpoint(loss), argnums=(0, 1)), A, B) == 4 * once


@pytest.mark.parametrize(("platform", "times"), [("cpu", 2), ("tpu", 1)])
def test_the_branch_of_the_platform_counts(platform, times):
    def function(a, b):
        return jax.lax.platform_dependent(a, b, cpu=lambda a, b: a @ b + (a * 2) @ b, default=jnp.matmul)

    assert counted(function, A, B, platform=platform) == times * counted(jnp.matmul, A, B)
    assert counted(jax.jit(function), A, B, platform=platform) == times * counted(jnp.matmul, A, B)
