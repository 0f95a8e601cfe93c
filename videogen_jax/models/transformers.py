"""Transformer layers of the UNet.

`SpatialTransformer` attends over the positions of a frame and to the text, `ReferenceAttention` from every frame to the
first. Attention over the frames of a video is in models/temporal_layers.py.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros as zeros_init

from videogen_jax.models.layers import Attention, LayerNorm, group_norm
from videogen_jax.models.ops.convolution import convolve
from videogen_jax.models.partitioning import constrain_images


def layer_norm(dtype: jnp.dtype, name: str) -> LayerNorm:
    """Return a `LayerNorm` of that name in the parent module."""
    return LayerNorm(dtype=dtype, name=name)


def gelu(x: jax.Array) -> jax.Array:
    """Compute the exact GELU (Hendrycks and Gimpel 2016) by erf, as PyTorch does.

    `jax.nn.gelu` uses erfc, which is more accurate for very negative x and takes three times as long on a CPU.
    """
    return x * (0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5)))


class Halves(nn.Module):
    """Linear layer whose output is returned in two halves: `(..., C)` -> two arrays `(..., features)`.

    With more positions than channels the kernel is split instead of the output: concatenating the gradients of the
    halves is slow on a CPU, and the kernel is then the smaller of the two.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", nn.linear.default_kernel_init, (x.shape[-1], 2 * self.features))
        bias = self.param("bias", zeros_init, (2 * self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        if math.prod(x.shape[:-1]) <= x.shape[-1]:
            return tuple(jnp.split(x @ kernel + bias, 2, axis=-1))
        halves = zip(jnp.split(kernel, 2, axis=-1), jnp.split(bias, 2), strict=True)
        return tuple(x @ half_kernel + half_bias for half_kernel, half_bias in halves)


class GEGLU(nn.Module):
    """Linear layer gated by the exact GELU of its second half (Shazeer 2020): `(..., C)` -> `(..., features)`."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h, gate = Halves(self.features, self.dtype, name="proj")(x)
        return h * gelu(gate)


class FeedForward(nn.Module):
    """GEGLU of four times the width and a linear layer back: `(..., C)` -> `(..., C)`."""

    zero_init: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = zeros_init if self.zero_init else nn.linear.default_kernel_init
        h = GEGLU(4 * x.shape[-1], self.dtype, name="net_0")(x)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="net_2")(h)


class TransformerBlock(nn.Module):
    """Self-attention within a frame, cross-attention to the text, feed-forward; each pre-norm with a residual."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
        """x: `(B*T, S, C)`, S positions a frame; context: `(B, L, D)`, one for all frames; returns x's shape."""
        head_dim = x.shape[-1] // self.heads

        def attention(name):
            return Attention(self.heads, head_dim, dtype=self.dtype, name=name)

        x = x + attention("attn1")(layer_norm(self.dtype, "norm1")(x))
        # The queries of all frames of a video are joined, `(B, T*S, C)`: the text is projected once, not per frame.
        queries = layer_norm(self.dtype, "norm2")(x).reshape(context.shape[0], -1, x.shape[-1])
        x = x + attention("attn2")(queries, context).reshape(x.shape)
        return x + FeedForward(dtype=self.dtype, name="ff")(layer_norm(self.dtype, "norm3")(x))


class SpatialTransformer(nn.Module):
    """Stable Diffusion's transformer over the positions of a frame (`Transformer2DModel`).

    Attributes:
      heads: number of heads; it divides the channels.
      depth: number of blocks.
      use_linear_projection: linear layers around the blocks (2.x) instead of 1x1 convolutions (1.x): the same function
        with another shape of kernel.
      groups: of the group norm.
    """

    heads: int
    depth: int = 1
    use_linear_projection: bool = False
    groups: int = 32
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
        """x: `(B*T, H, W, C)`; context: `(B, L, D)`; returns x's shape."""
        x = constrain_images(x)
        y = self.project_in(x)
        for i in range(self.depth):
            y = self.block(i)(y, context)
        return x + self.project_out(y, x.shape)

    def project_in(self, x: jax.Array) -> jax.Array:
        """Normalise and project `(B*T, H, W, C)` to the positions `(B*T, H*W, C)` of each frame."""
        y = group_norm(self.groups, 1e-6, self.dtype, "norm")(x)
        return self._project("proj_in", y, nn.linear.default_kernel_init).reshape(x.shape[0], -1, x.shape[-1])

    def block(self, i: int) -> TransformerBlock:
        """Return the transformer block number i."""
        return TransformerBlock(self.heads, self.dtype, name=f"transformer_blocks_{i}")

    def project_out(self, y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Project positions `(B*T, H*W, C)` back to frames of that shape `(B*T, H, W, C)`; zero until trained."""
        return self._project("proj_out", y.reshape(shape), zeros_init)

    def _project(self, name: str, y: jax.Array, init: nn.initializers.Initializer) -> jax.Array:
        fields = {"dtype": self.dtype, "kernel_init": init, "name": name}
        if self.use_linear_projection:
            return nn.Dense(y.shape[-1], **fields)(y)
        return nn.Conv(y.shape[-1], (1, 1), conv_general_dilated=convolve, padding=0, **fields)(y)


class ReferenceAttention(nn.Module):
    """Attention from every position of every frame to all positions of the first frame; the identity until trained.

    The first frame shows what the reference image shows (with `reference_frames="clean"` it is the reference), so this
    layer carries the reference's appearance to wherever it has moved; temporal attention stays at one position and does
    not follow motion. In Tune-A-Video (Wu et al. 2023, section 3.3) the spatial self-attention itself attends to the
    first frame; a layer of its own leaves the 2D UNet's function as it is.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, num_frames: int) -> jax.Array:
        """x: `(B*T, H, W, C)`; num_frames: T, static; returns x's shape."""
        n, h, w, c = x.shape
        x = constrain_images(x)
        y = layer_norm(self.dtype, "norm1")(x).reshape(n // num_frames, num_frames * h * w, c)
        attention = Attention(self.heads, c // self.heads, zero_init=True, dtype=self.dtype, name="attn1")
        return x + attention(y, y[:, : h * w]).reshape(x.shape)
