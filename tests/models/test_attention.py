import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.models import attention
from videogen_jax.models.attention import blockwise, dot_product_attention, in_turns
from videogen_jax.models.layers import convolve


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def exact(query, key, value):
    """In float64, by the definition."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("queries", [7, 512, 513, 1100])
def test_blocks_give_what_the_definition_gives(monkeypatch, queries):
    query, key, value = normal(2, queries, 3, 8), normal(2, 77, 3, 8, seed=1), normal(2, 77, 3, 8, seed=2)
    np.testing.assert_allclose(blockwise(query, key, value), exact(query, key, value), atol=2e-6)
    monkeypatch.setattr(attention, "_SCORES_OF_A_BLOCK", 100 * 77)  # blocks of 100 queries, the last one filled up
    np.testing.assert_allclose(in_turns(query, key, value), exact(query, key, value), atol=2e-6)


def test_large_scores_do_not_overflow():
    query, key, value = 100 * normal(1, 600, 1, 4), normal(1, 50, 1, 4, seed=1), normal(1, 50, 1, 4, seed=2)
    np.testing.assert_allclose(blockwise(query, key, value), exact(query, key, value), atol=5e-4)


@pytest.mark.parametrize("way", [blockwise, in_turns])
def test_gradients_are_those_of_all_scores_at_once(monkeypatch, way):
    monkeypatch.setattr(attention, "_SCORES_OF_A_BLOCK", 300 * 90)
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
    monkeypatch.setattr(attention, "_MOST_SCORES_OF_A_HEAD", 128 * 64 - 1)
    too_many = jax.jit(lambda *given: dot_product_attention(*given)).trace(query, key, key)
    assert "while" in too_many.lower(lowering_platforms=("tpu",)).as_text()
    found = blocks(query, key, key)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found.astype(jnp.float32), exact(query, key, key), atol=2e-6 if dtype == jnp.float32 else 2e-2
    )


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
    x, kernel = normal(*shape), normal(3, 3, shape[-1], features, seed=1)
    weights = normal(1, 1, 1, features, seed=2)
    settings = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def both(way):
        return jax.jit(jax.value_and_grad(lambda x, kernel: jnp.sum(weights * way(x, kernel) ** 2), (0, 1)))(x, kernel)

    ours = both(lambda x, kernel: convolve(x, kernel, (strides,) * 2, ((1, 1), (1, 1)), **settings))
    theirs = both(
        lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, (strides,) * 2, ((1, 1), (1, 1)), **settings)
    )
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
