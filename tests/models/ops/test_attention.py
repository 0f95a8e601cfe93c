import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.models.ops import attention
from videogen_jax.models.ops.attention import (
    blockwise_attention,
    chunked_attention,
    dot_product_attention,
    fits_cudnn,
)


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def exact(query, key, value):
    """In float64, by the definition."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("attend", [blockwise_attention, chunked_attention])
@pytest.mark.parametrize("queries", [7, 512, 513, 1100])
def test_blocks_give_what_the_definition_gives(queries, attend, monkeypatch):
    monkeypatch.setattr(attention, "_CHUNK_SCORES_PER_HEAD", 77 * 512)
    query, key, value = normal(2, queries, 3, 8), normal(2, 77, 3, 8, seed=1), normal(2, 77, 3, 8, seed=2)
    np.testing.assert_allclose(attend(query, key, value), exact(query, key, value), atol=2e-6)


def test_large_scores_do_not_overflow():
    query, key, value = 100 * normal(1, 600, 1, 4), normal(1, 50, 1, 4, seed=1), normal(1, 50, 1, 4, seed=2)
    np.testing.assert_allclose(blockwise_attention(query, key, value), exact(query, key, value), atol=5e-4)


@pytest.mark.parametrize("blocked", [blockwise_attention, chunked_attention])
def test_gradients_are_those_of_all_scores_at_once(blocked, monkeypatch):
    monkeypatch.setattr(attention, "_CHUNK_SCORES_PER_HEAD", 90 * 512)
    inputs = normal(1, 700, 2, 8), normal(1, 90, 2, 8, seed=1), normal(1, 90, 2, 8, seed=2)
    weights = normal(1, 700, 2, 8, seed=3)

    def gradient(attend):
        return jax.jit(jax.grad(lambda inputs: jnp.sum(weights * attend(*inputs))))(inputs)

    for ours, theirs in zip(gradient(blocked), gradient(jax.nn.dot_product_attention), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_backend_has_its_own_implementation_where_that_is_faster(monkeypatch, dtype):
    query, key = normal(2, 128, 2, 8, dtype=dtype), normal(2, 64, 2, 8, seed=1, dtype=dtype)
    text = jax.jit(dot_product_attention).lower(query, key, key).as_text()
    assert "while" not in text  # few scores: all at once
    monkeypatch.setattr(attention, "_MIN_BLOCKWISE_SCORES", 1)
    blocks = jax.jit(lambda *inputs: dot_product_attention(*inputs))
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
    inputs = [jax.ShapeDtypeStruct((2, 4096, 8, 40), jnp.float32)] * 3
    gradient = jax.jit(jax.grad(lambda *inputs: dot_product_attention(*inputs).sum(), (0, 1, 2))).trace(*inputs)
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
