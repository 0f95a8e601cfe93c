"""The operation count against closed forms, and against XLA's own count for a program without loops."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from videogen_jax.models.ops.attention import blockwise_attention, dot_product_attention
from videogen_jax.scaling.flops import count_flops


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_dense_layer_and_its_gradient():
    layer, x = nn.Dense(48), array(5, 32)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)
    forward = 2 * 5 * 32 * 48
    assert count_flops(layer.apply, params, x) == forward
    gradient = jax.grad(lambda params, x: jnp.sum(layer.apply(params, x) ** 2), argnums=(0, 1))
    assert count_flops(gradient, params, x) == 3 * forward


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("strides", [1, 2])
def test_convolution_and_its_gradient(strides, groups):
    layer, x = nn.Conv(24, (3, 3), strides=strides, feature_group_count=groups), array(2, 16, 16, 8)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)
    forward = 2 * 2 * (16 // strides) ** 2 * 24 * 9 * (8 // groups)
    assert count_flops(layer.apply, params, x) == forward
    gradient = jax.grad(lambda params, x: jnp.sum(layer.apply(params, x) ** 2), argnums=(0, 1))
    assert count_flops(gradient, params, x) == 3 * forward


def test_attention_counts_once_on_every_platform():
    query, keys = array(2, 1024, 4, 16), array(2, 512, 4, 16)
    expected = 2 * 2 * 2 * 4 * 1024 * 512 * 16  # two products
    assert count_flops(dot_product_attention, query, keys, keys) == expected
    assert count_flops(blockwise_attention, query, keys, keys) == expected


def test_blockwise_backward_pass_recomputes_scores():
    query = array(1, 1024, 2, 16)
    product = 2 * 2 * 1024 * 1024 * 16
    gradient = jax.grad(lambda *inputs: jnp.sum(blockwise_attention(*inputs)), argnums=(0, 1, 2))
    assert count_flops(gradient, query, query, query) == (2 + 5) * product


def test_gradient_counts_the_default_attention():
    query = array(2, 1024, 4, 16)
    product = 2 * 2 * 4 * 1024 * 1024 * 16
    gradient = jax.grad(lambda *inputs: jnp.sum(dot_product_attention(*inputs)), argnums=(0, 1, 2))
    assert count_flops(gradient, query, query, query) == 3 * 2 * product


def test_scan_counts_every_iteration():
    def scanned(x, weights):
        return jax.lax.scan(lambda x, _: (x @ weights, None), x, None, length=7)[0]

    assert count_flops(scanned, array(3, 16), array(16, 16)) == 7 * 2 * 3 * 16 * 16


def test_cond_counts_its_most_expensive_branch():
    def conditional(predicate, x):
        return jax.lax.cond(predicate, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert count_flops(conditional, jax.ShapeDtypeStruct((), bool), array(8, 8)) == 2 * 2 * 8**3


def test_loops_of_unknown_length_are_rejected():
    def loop(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 1, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="while"):
        count_flops(loop, array(8, 8))
    without_products = count_flops(lambda x: jax.lax.while_loop(lambda x: jnp.sum(x) < 1, lambda x: x + 1, x), array(8))
    assert without_products == 0


def test_agrees_with_xla_where_there_are_no_loops():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(32, (3, 3), padding="VALID")(x)
            return nn.Dense(64)(nn.Dense(128)(x))

    network, x = Network(), array(2, 18, 18, 16)
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    xla_flops = jax.jit(network.apply).lower(params, x).compile().cost_analysis()["flops"]
    assert count_flops(network.apply, params, x) == pytest.approx(xla_flops, rel=0.01)  # XLA also counts the biases
