"""Scaled dot-product attention, computed as suits the backend."""

import jax
import jax.numpy as jnp

BLOCK = 512  # queries at once
_LEAST_SCORES, _LEAST_SCORES_OF_A_HEAD = 2**20, 2**13  # below which all scores at once are as fast


def dot_product_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(query key^T / sqrt(D)) value, with the softmax in float32.

    On a CPU a head at a time, in blocks of queries, so that the scores of a block stay in the cache: all scores at once
    take four to six times as long at the 4,096 positions of 64x64 latents, and two to three times at 256.

    Args:
      query: `(B, Q, H, D)`.
      key, value: `(B, K, H, D)`.

    Returns: `(B, Q, H, D)`.
    """
    (batch, queries, heads, _), keys = query.shape, key.shape[1]
    of_a_head = queries * keys
    if of_a_head < _LEAST_SCORES_OF_A_HEAD or of_a_head * batch * heads < _LEAST_SCORES:
        return jax.nn.dot_product_attention(query, key, value)
    return jax.lax.platform_dependent(query, key, value, cpu=blockwise, default=jax.nn.dot_product_attention)


def blockwise(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """As `dot_product_attention`: for each head, BLOCK queries at a time; the backward pass computes scores again."""
    batch, queries, heads, dim = query.shape
    block = min(BLOCK, queries)
    fill = -queries % block

    def flat(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        x = x.transpose(axes)
        return x.reshape(-1, *x.shape[2:])

    rows = jnp.pad(flat(query, (0, 2, 1, 3)), ((0, 0), (0, fill), (0, 0)))
    rows = rows.reshape(batch * heads, -1, block, dim)
    columns, values = flat(key, (0, 2, 3, 1)), flat(value, (0, 2, 1, 3))

    def head(given: tuple[jax.Array, ...]) -> jax.Array:
        rows, columns, values = given

        @jax.checkpoint
        def attend(rows: jax.Array) -> jax.Array:
            scores = jnp.matmul(rows, columns, preferred_element_type=jnp.float32) * dim**-0.5
            weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
            summed = jnp.matmul(weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
            return (summed / weights.sum(-1, keepdims=True)).astype(query.dtype)

        return jax.lax.map(attend, rows) if len(rows) > 1 else attend(rows[0])[None]

    out = jax.lax.map(head, (rows, columns, values))
    out = out.reshape(batch, heads, -1, dim)[:, :, :queries]
    return out.transpose(0, 2, 1, 3)
