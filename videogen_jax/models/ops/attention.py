"""Scaled dot-product attention, computed in the way that suits the platform."""

import functools

import jax
import jax.numpy as jnp

from videogen_jax.models.partitioning import is_partitioned

QUERY_BLOCK = 512  # queries of a block of `blockwise_attention`
# On a CPU, fewer scores than these, in all and per head, are as fast all at once as in blocks.
_MIN_BLOCKWISE_SCORES, _MIN_BLOCKWISE_SCORES_PER_HEAD = 2**20, 2**13
# Elsewhere, more scores per head than this are not held for all heads at once, but so many at a time.
_MAX_SCORES_PER_HEAD, _CHUNK_SCORES_PER_HEAD = 2**23, 2**20
# Fewer keys make products too small to gain from a fused kernel; larger heads cuDNN takes on some GPUs only.
_MIN_CUDNN_KEYS, _MAX_CUDNN_HEAD_DIM = 64, 128


def dot_product_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Compute softmax(query key^T / sqrt(D)) value (Vaswani et al. 2017, eq. 1), with the softmax in float32.

    - On a CPU one head at a time, in blocks of queries, so that the scores of a block stay in the cache: all scores at
      once take four to six times as long at the 4,096 positions of 64x64 latents, and two to three times at 256. Not
      where a step is partitioned over devices: it joins examples and heads into one axis, which XLA would gather.
    - On NVIDIA GPUs by cuDNN's fused kernel, where it takes the shapes (`fits_cudnn`).
    - Elsewhere all heads at once, in chunks of queries where there are many: the scores of 16 frames of 64x64 latents
      would be 8 GiB. XLA partitions these products as it does any; a Pallas kernel would need to know the mesh.

    Args:
      query: `(B, Q, H, D)`.
      key, value: `(B, K, H, D)`.

    Returns: `(B, Q, H, D)`.
    """
    (batch, queries, heads, _), keys = query.shape, key.shape[1]
    per_head = queries * keys
    implementations = {
        "default": chunked_attention if per_head > _MAX_SCORES_PER_HEAD else jax.nn.dot_product_attention
    }
    large = per_head >= _MIN_BLOCKWISE_SCORES_PER_HEAD and per_head * batch * heads >= _MIN_BLOCKWISE_SCORES
    if large and not is_partitioned():
        implementations["cpu"] = blockwise_attention
    if jax.default_backend() == "gpu" and fits_cudnn(query, key):  # cuDNN's asks for the device when it is traced
        implementations["cuda"] = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    if len(implementations) == 1:
        return implementations["default"](query, key, value)
    return jax.lax.platform_dependent(query, key, value, **implementations)


def fits_cudnn(query: jax.Array, key: jax.Array) -> bool:
    """Whether cuDNN's attention takes these shapes and types (arguments as `dot_product_attention`'s).

    It takes 16-bit types, heads of a multiple of 8 up to 128 channels, even numbers of queries and keys.
    """
    (_, queries, _, dim), keys = query.shape, key.shape[1]
    return (
        query.dtype in (jnp.bfloat16, jnp.float16)
        and dim % 8 == 0
        and dim <= _MAX_CUDNN_HEAD_DIM
        and keys >= _MIN_CUDNN_KEYS
        and queries % 2 == keys % 2 == 0
    )


def chunked_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """As `dot_product_attention`, a chunk of the queries of all examples and heads at a time.

    The backward pass computes the scores again. Examples and heads stay axes of their own, over which the arrays may
    be spread on devices.
    """
    batch, queries, *heads_and_dim = query.shape
    size = max(1, min(queries, _CHUNK_SCORES_PER_HEAD // key.shape[1]))
    chunks = jnp.pad(query, ((0, 0), (0, -queries % size), (0, 0), (0, 0))).reshape(batch, -1, size, *heads_and_dim)
    attend = jax.checkpoint(lambda chunk: jax.nn.dot_product_attention(chunk, key, value))
    out = jax.lax.map(attend, chunks.swapaxes(0, 1))
    return out.swapaxes(0, 1).reshape(batch, -1, *heads_and_dim)[:, :queries]


def blockwise_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """As `dot_product_attention`, one head and `QUERY_BLOCK` queries at a time.

    The backward pass computes the scores again. Both passes are those of FlashAttention-2 (Dao 2023, algorithms 1 and
    2) with a single block of keys.
    """
    batch, queries, heads, dim = query.shape
    block = min(QUERY_BLOCK, queries)
    fill = -queries % block

    def heads_first(x: jax.Array) -> jax.Array:
        """`(B, S, H, D)` -> `(B * H, S, D)`."""
        x = x.transpose(0, 2, 1, 3)
        return x.reshape(-1, *x.shape[2:])

    blocks = jnp.pad(heads_first(query), ((0, 0), (0, fill), (0, 0))).reshape(batch * heads, -1, block, dim)
    out = _attend(blocks, heads_first(key), heads_first(value)).reshape(batch, heads, -1, dim)[:, :, :queries]
    return out.transpose(0, 2, 1, 3)


@jax.custom_vjp
def _attend(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Attention of N heads: queries `(N, blocks, block, D)`, keys and values `(N, K, D)`; returns queries' shape."""
    return _attend_forward(queries, keys, values)[0]


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _transposed(x: jax.Array) -> jax.Array:
    return x.swapaxes(-1, -2)


def _attend_forward(queries, keys, values):
    """Attention, and the residuals of the backward pass: arguments, result, log-sum-exp of each query's scores.

    The products are arranged such that no matrix of scores has to be transposed.
    """
    scale = queries.shape[-1] ** -0.5

    def head(inputs):
        blocks, key_columns, values = inputs  # (blocks, block, D), (D, K), (K, D)

        def attend(block):
            scores = _product(block, key_columns) * scale
            highest = scores.max(-1, keepdims=True)
            weights = jnp.exp(scores - highest)
            total = weights.sum(-1, keepdims=True)
            out = (_product(weights.astype(values.dtype), values) / total).astype(block.dtype)
            return out, (highest + jnp.log(total))[:, 0]

        return jax.lax.map(attend, blocks)

    out, log_sums = jax.lax.map(head, (queries, _transposed(keys), values))
    return out, (queries, keys, values, out, log_sums)


def _attend_backward(residuals, grads):
    scale, dtype = grads.shape[-1] ** -0.5, grads.dtype
    queries, keys, values, out, log_sums = residuals
    # The term that all scores of a query share in the softmax's gradient, Dao 2023's D_i.
    shared = (grads.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)

    def head(inputs):
        keys, key_columns, value_columns, *blocks = inputs  # (K, D), (D, K), (D, K)

        def attend(sums, inputs):
            block, log_sums, shared, grads = inputs
            weights = jnp.exp(_product(block, key_columns) * scale - log_sums[:, None])
            score_grads = (weights * (_product(grads, value_columns) - shared[:, None]) * scale).astype(dtype)
            key_sum = sums[0] + _product(block.T, score_grads)
            value_sum = sums[1] + _product(grads.T, weights.astype(dtype))
            return (key_sum, value_sum), _product(score_grads, keys).astype(dtype)

        zeros = jnp.zeros(key_columns.shape, jnp.float32)
        sums, query_grads = jax.lax.scan(attend, (zeros, zeros), tuple(blocks))
        return query_grads, *sums

    inputs = (keys, _transposed(keys), _transposed(values), queries, log_sums, shared, grads)
    query_grads, key_grads, value_grads = jax.lax.map(head, inputs)
    return query_grads, _transposed(key_grads).astype(dtype), _transposed(value_grads).astype(dtype)


_attend.defvjp(_attend_forward, _attend_backward)
