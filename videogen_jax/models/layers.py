"""Layers that the image and the video networks share.

Spatial layers take frames as a flat batch `(N, H, W, C)` with N = B*T, so an image is a video of one frame and no
spatial layer can tell the difference. Temporal layers take the same array and `num_frames` T. Modules are named as in
the old Flax port of diffusers (`down_blocks_0/resnets_1/conv1/kernel`), which makes the public checkpoints a renaming
away (weights/naming.py). Group norms and linear layers follow PyTorch's epsilons.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros as zeros_init

from videogen_jax.models.attention import dot_product_attention
from videogen_jax.models.partitioning import constrain_images


def sinusoidal_embedding(values: jax.Array, dim: int, max_period: float = 10_000.0) -> jax.Array:
    """Sinusoidal embedding of scalars (Vaswani et al. 2017), in the order of Stable Diffusion: cosines, then sines.

    Args:
      values: any shape `(...)`, in the units of timesteps.
      dim: size of the embedding, even.

    Returns: `(..., dim)` float32.
    """
    if dim % 2:
        raise ValueError(f"the dimension of a sinusoidal embedding must be even, not {dim}")
    half = dim // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = values.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers with SiLU: `(B, in)` -> `(B, dim)`; with `zero_init` the result is zero until trained."""

    dim: int
    dtype: jnp.dtype = jnp.float32
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(self.dim, dtype=self.dtype, name="linear_1")(x)
        init = zeros_init if self.zero_init else nn.linear.default_kernel_init
        return nn.Dense(self.dim, dtype=self.dtype, kernel_init=init, name="linear_2")(nn.silu(x))


class GroupNorm(nn.Module):
    """GroupNorm over all axes but the first, as PyTorch computes it: statistics in float32 and in two passes.

    Summing each channel over its positions before the channels of a group are joined keeps the reductions contiguous,
    which on CPU makes it two to three times as fast as `nn.GroupNorm`.
    """

    groups: int
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(f"a group norm of {self.groups} groups cannot divide {channels} channels")
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", zeros_init, (channels,))
        axes = tuple(range(1, x.ndim - 1))
        count = math.prod(x.shape[1:-1]) * (channels // self.groups)

        def group_mean(y):
            sums = y.sum(axes).reshape(-1, self.groups, channels // self.groups).sum(-1)
            return jnp.repeat(sums / count, channels // self.groups, axis=1)

        def over_positions(y):
            return jnp.expand_dims(y, axes)

        x = x.astype(jnp.float32)
        centred = x - over_positions(group_mean(x))
        factor = jax.lax.rsqrt(group_mean(jnp.square(centred)) + self.eps) * scale
        return (centred * over_positions(factor) + bias).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalize_last(x: jax.Array, eps: float, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """LayerNorm (Ba et al. 2016, eq. 4) over the last axis: x `(..., C)`, scale and bias `(C,)`, all float32.

    Its backward pass is written out, since XLA's CPU backend fuses what it derives itself into sums across rows that
    compute everything anew for each column: seven times as slow at 4,096 rows of 320.
    """
    return _normalized(x, eps)[0] * scale + bias


def _normalized(x: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    centred = x - x.mean(-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return centred * factor, factor


def _normalize_forward(x, eps, scale, bias):
    normal, factor = _normalized(x, eps)
    return normal * scale + bias, (normal, factor, scale)


def _normalize_backward(eps, kept, grad):
    del eps
    normal, factor, scale = kept
    inner = grad * scale
    projected = normal * (inner * normal).mean(-1, keepdims=True)
    of_x = factor * (inner - inner.mean(-1, keepdims=True) - projected)
    rows = tuple(range(grad.ndim - 1))
    return of_x, (grad * normal).sum(rows), grad.sum(rows)


normalize_last.defvjp(_normalize_forward, _normalize_backward)


class LayerNorm(nn.Module):
    """LayerNorm over the channels, statistics in float32 and in two passes; parameters as `nn.LayerNorm`'s."""

    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", zeros_init, (x.shape[-1],))
        x, scale, bias = (y.astype(jnp.float32) for y in (x, scale, bias))
        return normalize_last(x, self.eps, scale, bias).astype(self.dtype)


def group_norm(groups: int, eps: float, dtype: jnp.dtype, name: str) -> GroupNorm:
    """GroupNorm over all axes but the first, as PyTorch computes it (statistics in float32)."""
    return GroupNorm(groups, eps, dtype, name=name)


def convolve(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
    """`jax.lax.conv_general_dilated` for `nn.Conv`, which takes small maps as patches times a matrix.

    XLA's CPU backend is slow on few positions of many channels: at 8x8 positions of 1,280 channels the product is 3.6
    times as fast, at 16x16 of them 1.2 times (and 1.6 times with the backward pass), on maps of 2x2 and smaller up to
    twenty times, and eight times in the gradient of a convolution of stride two.

    Args:
      x: `(N, H, W, C)`.
      kernel: `(kh, kw, C, features)`.
      strides: `(2,)` numbers, or one for both axes.
      padding: two pairs of numbers.
      **kwargs: what `nn.Conv` passes on besides; no dilation and no channel groups.
    """
    (_, height, width, _), (kh, kw, _, features) = x.shape, kernel.shape
    sy, sx = (strides, strides) if isinstance(strides, int) else strides
    out_h = (height + sum(padding[0]) - kh) // sy + 1
    out_w = (width + sum(padding[1]) - kw) // sx + 1

    x = constrain_images(x)

    def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (sy, sx), padding, **kwargs)

    def by_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        ends = ((out_h - 1) * sy + 1, (out_w - 1) * sx + 1)
        patches = [x[:, i : i + ends[0] : sy, j : j + ends[1] : sx] for i in range(kh) for j in range(kw)]
        return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, features)

    positions = out_h * out_w
    if positions <= (4 if sy == sx == 1 else 64):
        return by_patches(x, kernel)
    if kh * kw > 1 and ((positions <= 64 and features >= 128) or (positions <= 256 and features >= 512)):
        return jax.lax.platform_dependent(x, kernel, cpu=by_patches, default=direct)
    return direct(x, kernel)


def convolve_doubled(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
    """A 3x3 convolution, padded by one, of the nearest-neighbour doubling of x, without the doubling.

    A window of three over doubled rows sees two rows of x, one of them twice; so each of the four phases of the output
    is a 2x2 convolution of x whose kernel holds sums of the 3x3 one's: four ninths of the work (Odena et al. 2016 show
    the doubling; the phases are those of Shi et al. 2016, section 3).

    Args:
      x: `(N, H, W, C)`.
      kernel: `(3, 3, C, features)`.
      strides, padding: of `nn.Conv`, which passes them on: one each.
      **kwargs: as in `convolve`.

    Returns: `(N, 2 * H, 2 * W, features)`.
    """
    del strides, padding
    return _convolve_doubled(tuple(sorted(kwargs.items())), x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve_doubled(settings: tuple, x: jax.Array, kernel: jax.Array) -> jax.Array:
    (n, h, w, c), features = x.shape, kernel.shape[-1]

    def phases(kernel: jax.Array) -> jax.Array:
        """The first axis, of three, to (phase, tap), each of two."""
        first, second, third = kernel
        return jnp.stack([jnp.stack([first, second + third]), jnp.stack([first + second, third])])

    # (row phase, row tap, column phase, column tap, C, features) -> taps first, phases beside the features
    kernels = jax.vmap(jax.vmap(phases))(phases(kernel)).transpose(1, 3, 4, 0, 2, 5)
    together = convolve(x, kernels.reshape(2, 2, c, 4 * features), 1, ((1, 1), (1, 1)), **dict(settings))
    together = together.reshape(n, h + 1, w + 1, 2, 2, features)
    rows = [jnp.stack([together[:, i : i + h, j : j + w, i, j] for j in (0, 1)], axis=3) for i in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, features)


def _convolve_doubled_forward(settings, x, kernel):
    return _convolve_doubled(settings, x, kernel), (x, kernel)


def _convolve_doubled_backward(settings, kept, grad):
    """By way of the doubling: on a CPU the gradients of the phases take twice as long."""

    def doubled(x, kernel):
        n, h, w, c = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)
        return convolve(x, kernel, 1, ((1, 1), (1, 1)), **dict(settings))

    return jax.vjp(doubled, *kept)[1](grad)


_convolve_doubled.defvjp(_convolve_doubled_forward, _convolve_doubled_backward)


def convolve_images(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
    """`jax.lax.conv_general_dilated` for `nn.Conv`, of images `(N, H, W, C)` that are whole on each device."""
    return jax.lax.conv_general_dilated(constrain_images(x), kernel, strides, padding, **kwargs)


def convolve_clips(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
    """A 3D convolution of clips, for `nn.Conv`, as 2D ones of their frames.

    XLA (as of jaxlib 0.10.2) sums the gradient of a 3D one's kernel twice where frames and channels are both spread
    over devices.

    Args:
      x: `(B, T, H, W, C)`.
      kernel: `(3, kh, kw, C, features)`.
      strides: of frames, which is 1, of rows, of columns.
      padding: "SAME", or three pairs of numbers, the first (1, 1).
      **kwargs: what `nn.Conv` passes on besides; no dilation and no channel groups.
    """
    padding = padding if isinstance(padding, str) else padding[1:]
    settings = {**kwargs, "dimension_numbers": ("NHWC", "HWIO", "NHWC"), "lhs_dilation": None, "rhs_dilation": None}
    frames = x.reshape(-1, *x.shape[2:])
    past, same, future = (convolve_images(frames, k, strides[1:], padding, **settings) for k in kernel)
    past, same, future = (y.reshape(*x.shape[:2], *y.shape[1:]) for y in (past, same, future))
    rest = ((0, 0),) * 3
    past = jnp.pad(past[:, :-1], ((0, 0), (1, 0), *rest))
    return same + past + jnp.pad(future[:, 1:], ((0, 0), (0, 1), *rest))


def conv3x3(features: int, dtype: jnp.dtype, name: str, **kwargs) -> nn.Conv:
    """3x3 convolution with PyTorch's symmetric padding of one (`strides`, `padding` and the like by keyword)."""
    kwargs = {"padding": ((1, 1), (1, 1)), "conv_general_dilated": convolve, **kwargs}
    return nn.Conv(features, (3, 3), dtype=dtype, name=name, **kwargs)


class TemporalConv(nn.Module):
    """1D convolution over frames with kernel (3, 1, 1): `(B, T, H, W, C)` -> `(B, T, H, W, features)`.

    Computed as three shifted matrix products, which on every backend is as fast as a 3D convolution or faster, and
    keeps the layout. The parameter is a 3D convolution's, so public checkpoints fit.
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        num_frames = x.shape[1]
        kernel = self.param("kernel", self.kernel_init, (3, 1, 1, x.shape[-1], self.features))
        bias = self.param("bias", zeros_init, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = x @ kernel[1, 0, 0] + bias
        if num_frames == 1:
            return y
        past = jnp.pad(x[:, :-1] @ kernel[0, 0, 0], ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))
        future = jnp.pad(x[:, 1:] @ kernel[2, 0, 0], ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0)))
        return y + past + future


class ResidualTemporalConv(nn.Module):
    """`x + TemporalConv(x)` with a zero kernel at the start: the identity until trained (Make-A-Video's pseudo-3D
    convolution, Singer et al. 2022, section 3.2.1, with the identity kept outside the kernel)."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, num_frames: int) -> jax.Array:
        """x: `(B*T, H, W, C)`; returns the same shape."""
        video = x.reshape(-1, num_frames, *x.shape[1:])
        update = TemporalConv(x.shape[-1], self.dtype, kernel_init=zeros_init, name="conv")(video)
        return x + update.reshape(x.shape)


class ResnetBlock(nn.Module):
    """Stable Diffusion's residual block; with `temporal`, a 1D convolution over frames follows each 2D convolution."""

    features: int
    groups: int = 32
    eps: float = 1e-5
    temporal: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array | None = None, num_frames: int = 1) -> jax.Array:
        """x: `(N, H, W, C)`; temb: `(N, D)` or None; returns `(N, H, W, features)`."""
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm1")(x))
        h = conv3x3(self.features, self.dtype, "conv1")(h)
        if self.temporal:
            h = ResidualTemporalConv(self.dtype, name="temporal_conv1")(h, num_frames)
        if temb is not None:
            h = h + nn.Dense(self.features, dtype=self.dtype, name="time_emb_proj")(nn.silu(temb))[:, None, None]
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm2")(h))
        h = conv3x3(self.features, self.dtype, "conv2")(h)
        if self.temporal:
            h = ResidualTemporalConv(self.dtype, name="temporal_conv2")(h, num_frames)
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="conv_shortcut")(x)
        return x + h


class Downsample(nn.Module):
    """Stride-2 3x3 convolution. `asymmetric` pads right and bottom only, as Stable Diffusion's autoencoder does."""

    features: int
    asymmetric: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        padding = ((0, 1), (0, 1)) if self.asymmetric else ((1, 1), (1, 1))
        return conv3x3(self.features, self.dtype, "conv", strides=(2, 2), padding=padding)(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return conv3x3(self.features, self.dtype, "conv", conv_general_dilated=convolve_doubled)(x)


class Attention(nn.Module):
    """Multi-head attention as in diffusers: `to_q`, `to_k`, `to_v`, `to_out_0`.

    Attributes:
      heads, head_dim: number and size of the heads.
      use_bias: whether q, k, v have a bias (the autoencoder's do, the UNet's do not).
      zero_init: start `to_out_0` at zero, so that the residual branch begins as the identity.
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

        out = dot_product_attention(project("to_q", x), project("to_k", context), project("to_v", context))
        init = zeros_init if self.zero_init else nn.linear.default_kernel_init
        out = out.reshape(*out.shape[:-2], inner)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="to_out_0")(out)


class SpatialAttention(nn.Module):
    """Single self-attention over the positions of a frame with a group norm and a residual (the autoencoder's)."""

    head_dim: int | None = None  # None: one head over all channels
    groups: int = 32
    eps: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
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
