"""Scaled dot-product attention, computed as suits the backend."""

import functools

import jax
import jax.numpy as jnp

from videogen_jax.models.partitioning import partitioned

BLOCK = 512  # queries at once
_LEAST_SCORES, _LEAST_SCORES_OF_A_HEAD = 2**20, 2**13  # below which all scores at once are as fast on a CPU
_MOST_SCORES_OF_A_HEAD = 2**23  # above which, elsewhere, the scores of all heads are not held at once
_SCORES_OF_A_BLOCK = 2**20  # of a head, where they are not
_LEAST_CUDNN_KEYS, _MOST_CUDNN_DIM = 64, 128  # fewer are small products, for which a fused kernel is no gain


def dot_product_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(query key^T / sqrt(D)) value, with the softmax in float32.

    - On a CPU a head at a time, in blocks of queries, so that the scores of a block stay in the cache: all scores at
      once take four to six times as long at the 4,096 positions of 64x64 latents, and two to three times at 256. Not
      where a step is spread over several devices: it makes one axis of examples and heads, which XLA would gather.
    - On NVIDIA's GPUs by cuDNN's fused kernel, where it takes the shapes: 16-bit types, heads of a multiple of 8 up to
      128 channels, even numbers of queries and keys.
    - Elsewhere all heads at once, in blocks of queries where there are many: the scores of 16 frames of 64x64 latents
      would be 8 GiB. XLA partitions these products as it does any; a Pallas kernel would have to be told the mesh.

    Args:
      query: `(B, Q, H, D)`.
      key, value: `(B, K, H, D)`.

    Returns: `(B, Q, H, D)`.
    """
    (batch, queries, heads, _), keys = query.shape, key.shape[1]
    of_a_head = queries * keys
    ways = {"default": in_blocks if of_a_head > _MOST_SCORES_OF_A_HEAD else jax.nn.dot_product_attention}
    if not partitioned() and of_a_head >= _LEAST_SCORES_OF_A_HEAD and of_a_head * batch * heads >= _LEAST_SCORES:
        ways["cpu"] = blockwise
    if jax.default_backend() == "gpu" and fits_cudnn(query, key):  # it asks for the device when it is traced
        ways["cuda"] = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    if len(ways) == 1:
        return ways["default"](query, key, value)
    return jax.lax.platform_dependent(query, key, value, **ways)


def fits_cudnn(query: jax.Array, key: jax.Array) -> bool:
    """Whether cuDNN's attention takes these shapes and types (arguments as `dot_product_attention`'s)."""
    (_, queries, _, dim), keys = query.shape, key.shape[1]
    return (
        query.dtype in (jnp.bfloat16, jnp.float16)
        and dim % 8 == 0
        and dim <= _MOST_CUDNN_DIM
        and keys >= _LEAST_CUDNN_KEYS
        and queries % 2 == keys % 2 == 0
    )


def in_blocks(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """As `dot_product_attention`: some queries of all examples and heads at a time; the backward pass computes scores
    again. Examples and heads stay whole axes, over which the arrays may be spread on devices."""
    batch, queries, *rest = query.shape
    block = max(1, min(queries, _SCORES_OF_A_BLOCK // key.shape[1]))
    rows = jnp.pad(query, ((0, 0), (0, -queries % block), (0, 0), (0, 0))).reshape(batch, -1, block, *rest)
    attend = jax.checkpoint(lambda some: jax.nn.dot_product_attention(some, key, value))
    out = jax.lax.map(attend, rows.swapaxes(0, 1))
    return out.swapaxes(0, 1).reshape(batch, -1, *rest)[:, :queries]


def blockwise(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """As `dot_product_attention`: for each head, BLOCK queries at a time; the backward pass computes scores again."""
    batch, queries, heads, dim = query.shape
    block = min(BLOCK, queries)
    fill = -queries % block

    def flat(x: jax.Array) -> jax.Array:
        x = x.transpose(0, 2, 1, 3)
        return x.reshape(-1, *x.shape[2:])

    rows = jnp.pad(flat(query), ((0, 0), (0, fill), (0, 0))).reshape(batch * heads, -1, block, dim)
    out = _heads(rows, flat(key), flat(value)).reshape(batch, heads, -1, dim)[:, :, :queries]
    return out.transpose(0, 2, 1, 3)


@jax.custom_vjp
def _heads(rows: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """rows: queries `(N, blocks, BLOCK, D)` of N heads; keys, values: `(N, K, D)`; returns rows' shape."""
    return _forward(rows, keys, values)[0]


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _turned(x: jax.Array) -> jax.Array:
    return x.swapaxes(-1, -2)


def _forward(rows, keys, values):
    """Also what is kept for the backward pass: the logarithm of each query's sum of exponentials, `(N, blocks, BLOCK)`.

    Both passes are those of FlashAttention-2 (Dao 2023, algorithms 1 and 2), whose blocks of keys are all of them here.
    Products are taken so that no scores have to be transposed.
    """
    scale = rows.shape[-1] ** -0.5

    def head(given):
        rows, columns, values = given

        def attend(rows):
            scores = _product(rows, columns) * scale
            highest = scores.max(-1, keepdims=True)
            weights = jnp.exp(scores - highest)
            total = weights.sum(-1, keepdims=True)
            out = (_product(weights.astype(values.dtype), values) / total).astype(rows.dtype)
            return out, (highest + jnp.log(total))[:, 0]

        return jax.lax.map(attend, rows)

    out, normalizers = jax.lax.map(head, (rows, _turned(keys), values))
    return out, (rows, keys, values, out, normalizers)


def _backward(kept, grads):
    scale, dtype = grads.shape[-1] ** -0.5, grads.dtype
    rows, keys, values, out, normalizers = kept
    shared = (grads.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)

    def head(given):
        keys, columns, value_columns, *blocks = given

        def attend(sums, given):
            rows, normalizers, shared, grads = given
            weights = jnp.exp(_product(rows, columns) * scale - normalizers[:, None])
            of_scores = (weights * (_product(grads, value_columns) - shared[:, None]) * scale).astype(dtype)
            of_columns = sums[0] + _product(rows.T, of_scores)
            of_values = sums[1] + _product(grads.T, weights.astype(dtype))
            return (of_columns, of_values), _product(of_scores, keys).astype(dtype)

        zeros = jnp.zeros(columns.shape, jnp.float32)
        sums, of_rows = jax.lax.scan(attend, (zeros, zeros), tuple(blocks))
        return of_rows, *sums

    given = (keys, _turned(keys), _turned(values), rows, normalizers, shared, grads)
    of_rows, of_columns, of_values = jax.lax.map(head, given)
    return of_rows, _turned(of_columns).astype(dtype), _turned(of_values).astype(dtype)


_heads.defvjp(_forward, _backward)
