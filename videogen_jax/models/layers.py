"""Layers that the image and the video networks share.

Spatial layers take frames as a flat batch `(N, H, W, C)` with N = B*T, so an image is a video of one frame and no
spatial layer can tell the difference; what joins frames is in models/temporal_layers.py. Modules are named as in the
old Flax port of diffusers (`down_blocks_0/resnets_1/conv1/kernel`), so public checkpoints load by renaming alone
(weights/naming.py). Norms have PyTorch's epsilons. The kernels that make them fast are in models/ops/.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros as zeros_init

from videogen_jax.models.ops.attention import dot_product_attention
from videogen_jax.models.ops.convolution import convolve, convolve_upsampled
from videogen_jax.models.ops.normalization import normalize_channels, normalize_groups
from videogen_jax.models.partitioning import constrain_images


def sinusoidal_embedding(values: jax.Array, dim: int, max_period: float = 10_000.0) -> jax.Array:
    """Embed scalars by sinusoids (Vaswani et al. 2017), in the order of Stable Diffusion: cosines, then sines.

    Args:
      values: any shape `(...)`, in the units of timesteps.
      dim: size of the embedding, even.
      max_period: longest wavelength, divided by 2 pi.

    Returns: `(..., dim)` float32.
    """
    if dim % 2:
        raise ValueError(f"the dimension of a sinusoidal embedding must be even, not {dim}")
    half = dim // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = values.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers with SiLU between them: `(B, in)` -> `(B, dim)`.

    Attributes:
      dim: channels of the result.
      zero_init: start the second layer at zero, so that the result is zero until trained.
      hidden_dim: channels between the layers; None: `dim`.
    """

    dim: int
    dtype: jnp.dtype = jnp.float32
    zero_init: bool = False
    hidden_dim: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(self.hidden_dim or self.dim, dtype=self.dtype, name="linear_1")(x)
        init = zeros_init if self.zero_init else nn.linear.default_kernel_init
        return nn.Dense(self.dim, dtype=self.dtype, kernel_init=init, name="linear_2")(nn.silu(x))


class GroupNorm(nn.Module):
    """GroupNorm over all axes but the first, as PyTorch computes it: statistics in float32 and in two passes.

    Attributes:
      groups: a divisor of the channels.
      eps: added to the variance.
    """

    groups: int
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: `(N, ..., C)`; returns the same shape in `dtype`."""
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(f"a group norm of {self.groups} groups cannot divide {channels} channels")
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", zeros_init, (channels,))
        return normalize_groups(x.astype(jnp.float32), self.groups, self.eps, scale, bias).astype(self.dtype)


class LayerNorm(nn.Module):
    """LayerNorm over the channels: statistics in float32 and in two passes, the parameters of `nn.LayerNorm`."""

    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: `(..., C)`; returns the same shape in `dtype`."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", zeros_init, (x.shape[-1],))
        x, scale, bias = (y.astype(jnp.float32) for y in (x, scale, bias))
        return normalize_channels(x, self.eps, scale, bias).astype(self.dtype)


def group_norm(groups: int, eps: float, dtype: jnp.dtype, name: str) -> GroupNorm:
    """Return a `GroupNorm` of that name in the parent module."""
    return GroupNorm(groups, eps, dtype, name=name)


def conv3x3(features: int, dtype: jnp.dtype, name: str, **kwargs) -> nn.Conv:
    """Return a 3x3 convolution with PyTorch's symmetric padding of one; kwargs are further fields of `nn.Conv`."""
    kwargs = {"padding": ((1, 1), (1, 1)), "conv_general_dilated": convolve, **kwargs}
    return nn.Conv(features, (3, 3), dtype=dtype, name=name, **kwargs)


class ResnetBlock(nn.Module):
    """Stable Diffusion's residual block.

    Attributes:
      features: channels of the output.
      groups, eps: of the group norms.
    """

    features: int
    groups: int = 32
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array | None = None) -> jax.Array:
        """x: `(N, H, W, C)`, N = B*T; temb: `(N, D)` or None; returns `(N, H, W, features)`."""
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm1")(x))
        h = self.after_convolution(1, conv3x3(self.features, self.dtype, "conv1")(h))
        if temb is not None:
            h = h + nn.Dense(self.features, dtype=self.dtype, name="time_emb_proj")(nn.silu(temb))[:, None, None]
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm2")(h))
        h = self.after_convolution(2, conv3x3(self.features, self.dtype, "conv2")(h))
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="conv_shortcut")(x)
        return x + h

    def after_convolution(self, i: int, h: jax.Array) -> jax.Array:
        """Apply what follows convolution i, 1 or 2: nothing, but a subclass may. h: `(N, H, W, features)`."""
        return h


class Downsample(nn.Module):
    """3x3 convolution of stride two: `(N, H, W, C)` -> `(N, H / 2, W / 2, features)`; odd sizes are rounded up.

    Attributes:
      asymmetric: pad right and bottom only, as Stable Diffusion's autoencoder does; odd sizes are then rounded down.
    """

    features: int
    asymmetric: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        padding = ((0, 1), (0, 1)) if self.asymmetric else ((1, 1), (1, 1))
        return conv3x3(self.features, self.dtype, "conv", strides=(2, 2), padding=padding)(x)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by two, then a 3x3 convolution: `(N, H, W, C)` -> `(N, 2 H, 2 W, features)`."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return conv3x3(self.features, self.dtype, "conv", conv_general_dilated=convolve_upsampled)(x)


class Attention(nn.Module):
    """Multi-head attention as in diffusers: `to_q`, `to_k`, `to_v`, `to_out_0`.

    Attributes:
      heads, head_dim: number and size of the heads.
      use_bias: whether q, k, v have a bias.
      zero_init: start `to_out_0` at zero, so that a residual layer starts as the identity.
    """

    heads: int
    head_dim: int
    use_bias: bool = False
    zero_init: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """x: queries `(B, Q, C)`; context: keys and values `(B, K, D)`, x itself if None; returns `(B, Q, C)`."""
        context = x if context is None else context
        inner = self.heads * self.head_dim

        def project(name, y):
            y = nn.Dense(inner, use_bias=self.use_bias, dtype=self.dtype, name=name)(y)
            return y.reshape(*y.shape[:-1], self.heads, self.head_dim)

        if context.shape[1] == 1 and not self.is_initializing():
            out = project("to_v", context)  # every query attends to the one key there is, whatever they are
        else:
            out = dot_product_attention(project("to_q", x), project("to_k", context), project("to_v", context))
        init = zeros_init if self.zero_init else nn.linear.default_kernel_init
        out = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="to_out_0")(
            out.reshape(*out.shape[:-2], inner)
        )
        return jnp.broadcast_to(out, x.shape)


class SpatialAttention(nn.Module):
    """The autoencoder's self-attention over the positions of a frame, with a group norm and a residual.

    Attributes:
      head_dim: channels of a head; None: one head over all channels.
      groups, eps: of the group norm.
    """

    head_dim: int | None = None
    groups: int = 32
    eps: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: `(N, H, W, C)`; returns x's shape."""
        n, h, w, c = x.shape
        head_dim = self.head_dim or c
        if c % head_dim:
            raise ValueError(f"attention over {c} channels cannot have heads of {head_dim}")
        x = constrain_images(x)
        y = group_norm(self.groups, self.eps, self.dtype, "group_norm")(x).reshape(n, h * w, c)

        def project(name, z):
            return nn.Dense(c, dtype=self.dtype, name=name)(z)

        q, k, v = (project(name, y).reshape(n, h * w, c // head_dim, head_dim) for name in ("to_q", "to_k", "to_v"))
        out = dot_product_attention(q, k, v).reshape(n, h * w, c)
        return x + project("to_out_0", out).reshape(x.shape)
