import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.models import attention
from videogen_jax.models.attention import blockwise, dot_product_attention, fits_cudnn, in_blocks
from videogen_jax.models.layers import Upsample, convolve


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def exact(query, key, value):
    """In float64, by the definition."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("way", [blockwise, in_blocks])
@pytest.mark.parametrize("queries", [7, 512, 513, 1100])
def test_blocks_give_what_the_definition_gives(queries, way, monkeypatch):
    monkeypatch.setattr(attention, "_SCORES_OF_A_BLOCK", 77 * 512)
    query, key, value = normal(2, queries, 3, 8), normal(2, 77, 3, 8, seed=1), normal(2, 77, 3, 8, seed=2)
    np.testing.assert_allclose(way(query, key, value), exact(query, key, value), atol=2e-6)


def test_large_scores_do_not_overflow():
    query, key, value = 100 * normal(1, 600, 1, 4), normal(1, 50, 1, 4, seed=1), normal(1, 50, 1, 4, seed=2)
    np.testing.assert_allclose(blockwise(query, key, value), exact(query, key, value), atol=5e-4)


@pytest.mark.parametrize("way", [blockwise, in_blocks])
def test_gradients_are_those_of_all_scores_at_once(way, monkeypatch):
    monkeypatch.setattr(attention, "_SCORES_OF_A_BLOCK", 90 * 512)
    given = normal(1, 700, 2, 8), normal(1, 90, 2, 8, seed=1), normal(1, 90, 2, 8, seed=2)
    weights = normal(1, 700, 2, 8, seed=3)

    def gradient(attend):
        return jax.jit(jax.grad(lambda given: jnp.sum(weights * attend(*given))))(given)

    for ours, theirs in zip(gradient(way), gradient(jax.nn.dot_product_attention), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_way_of_a_backend_is_chosen_where_it_pays(monkeypatch, dtype):
    query, key = normal(2, 128, 2, 8, dtype=dtype), normal(2, 64, 2, 8, seed=1, dtype=dtype)
    text = jax.jit(dot_product_attention).lower(query, key, key).as_text()
    assert "while" not in text  # few scores: all at once
    monkeypatch.setattr(attention, "_LEAST_SCORES", 1)
    blocks = jax.jit(lambda *given: dot_product_attention(*given))
    lowered = blocks.trace(query, key, key).lower(lowering_platforms=("cpu",)).as_text()
    assert "while" in lowered
    elsewhere = blocks.trace(query, key, key).lower(lowering_platforms=("tpu",)).as_text()
    assert "while" not in elsewhere
    found = blocks(query, key, key)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found.astype(jnp.float32), exact(query, key, key), atol=2e-6 if dtype == jnp.float32 else 2e-2
    )


def test_no_backend_holds_the_scores_of_all_heads_at_once():
    """Of 64x64 latents, at Stable Diffusion's heads, forward and backward."""
    given = [jax.ShapeDtypeStruct((2, 4096, 8, 40), jnp.float32)] * 3
    gradient = jax.jit(jax.grad(lambda *given: dot_product_attention(*given).sum(), (0, 1, 2))).trace(*given)
    for platform in ("cpu", "cuda", "tpu"):
        assert "4096x4096x" not in gradient.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("queries", "keys", "dim", "dtype", "fits"),
    [
        (4096, 4096, 40, jnp.bfloat16, True),
        (4096, 4096, 40, jnp.float32, False),
        (4096, 77, 40, jnp.bfloat16, False),
        (16, 16, 40, jnp.bfloat16, False),
        (256, 256, 36, jnp.bfloat16, False),
        (256, 256, 512, jnp.float16, False),
    ],
)
def test_what_cudnn_takes(queries, keys, dim, dtype, fits):
    query, key = (jax.ShapeDtypeStruct((1, count, 2, dim), dtype) for count in (queries, keys))
    assert fits_cudnn(query, key) == fits


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

    def both(way):
        return jax.jit(jax.value_and_grad(lambda x, kernel: jnp.sum(weights * way(x, kernel) ** 2), (0, 1)))(x, kernel)

    with jax.enable_x64(True):
        x, kernel = normal(*shape, dtype=jnp.float64), normal(3, 3, shape[-1], features, seed=1, dtype=jnp.float64)
        weights = normal(1, 1, 1, features, seed=2, dtype=jnp.float64)
        ours = both(lambda x, kernel: convolve(x, kernel, (strides,) * 2, ((1, 1), (1, 1)), **settings))
        theirs = both(
            lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, (strides,) * 2, ((1, 1), (1, 1)), **settings)
        )
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == jnp.float64
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(2, 1, 1, 6), (1, 3, 5, 4), (2, 16, 8, 3)])
def test_doubling_is_left_out_of_what_it_gives(shape):
    layer, x = Upsample(5), normal(*shape)
    params = jax.tree.map(lambda leaf: normal(*leaf.shape, seed=1), layer.init(jax.random.key(0), x))
    weights = normal(1, 1, 1, 5, seed=2)

    def doubled(params, x):
        conv = params["params"]["conv"]
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        settings = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(x, conv["kernel"], (1, 1), ((1, 1), (1, 1)), **settings) + conv["bias"]

    def both(way):
        return jax.jit(jax.value_and_grad(lambda *given: jnp.sum(weights * way(*given) ** 2), (0, 1)))(params, x)

    np.testing.assert_allclose(layer.apply(params, x), doubled(params, x), atol=1e-4)
    for one, other in zip(jax.tree.leaves(both(layer.apply)), jax.tree.leaves(both(doubled)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-2)
