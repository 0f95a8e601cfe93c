"""The layers that join the frames of video networks.

They take frames as the spatial layers do, as a flat batch `(B*T, H, W, C)`, and where they need it the time of each
frame, `positions` `(B, T)`, in frames. All start as the identity. models/temporal_kinds.py has their places in a UNet.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros as zeros_init

from videogen_jax.models.layers import Attention, ResnetBlock, TimestepEmbedding, group_norm, sinusoidal_embedding
from videogen_jax.models.partitioning import constrain, constrain_images
from videogen_jax.models.transformers import FeedForward, SpatialTransformer, layer_norm


class TemporalConv(nn.Module):
    """1D convolution over frames with kernel (3, 1, 1): `(B, T, H, W, C)` -> `(B, T, H, W, features)`.

    It is computed as three shifted matrix products, which on every backend is as fast as a 3D convolution or faster,
    and keeps the layout. The parameter has a 3D convolution's shape, so public checkpoints fit.
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


def over_frames(attention: nn.Module, x: jax.Array) -> jax.Array:
    """Apply self-attention, `(N, T, C)` -> same shape, to the frames of each position. x: `(B, T, S, C)`."""
    b, t, s, c = x.shape
    # Where frames lie on several devices, each gets all frames of some positions, not all positions of all frames.
    y = constrain(constrain(x, "batch", None, "positions").swapaxes(1, 2), "batch", "positions")
    y = attention(y.reshape(b * s, t, c)).reshape(b, s, t, c)
    return constrain(constrain(y, "batch", "positions").swapaxes(1, 2), "batch", "frames")


# Make-A-Video (Singer et al. 2022), this project's own kind.


class ResidualTemporalConv(nn.Module):
    """`x + TemporalConv(x)` with a kernel that starts at zero: the identity until trained.

    This is Make-A-Video's pseudo-3D convolution (Singer et al. 2022, section 3.2.1) with the identity outside the
    kernel.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, num_frames: int) -> jax.Array:
        """x: `(B*T, H, W, C)`; returns the same shape."""
        video = x.reshape(-1, num_frames, *x.shape[1:])
        update = TemporalConv(x.shape[-1], self.dtype, kernel_init=zeros_init, name="conv")(video)
        return x + update.reshape(x.shape)


class PseudoResnetBlock(ResnetBlock):
    """A residual block with a 1D convolution over frames after each 2D convolution.

    Attributes:
      num_frames: T.
    """

    num_frames: int = 1

    def after_convolution(self, i: int, h: jax.Array) -> jax.Array:
        """Apply the convolution over frames number i. h: `(B*T, H, W, features)`."""
        return ResidualTemporalConv(self.dtype, name=f"temporal_conv{i}")(h, self.num_frames)


class TemporalTransformer(nn.Module):
    """Self-attention over the frames at each position, and a feed-forward layer; the identity until trained.

    The time of each frame is embedded and added to the normalised input of the attention. It is a number, not an index,
    so it may be the true time of frames that are unevenly or finely spaced.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """x: `(B*T, H, W, C)`; positions: `(B, T)` float, in frames; returns x's shape."""
        (n, h, w, c), (b, t) = x.shape, positions.shape
        time = nn.Dense(c, dtype=self.dtype, name="position_embedding")(sinusoidal_embedding(positions, c))  # (B, T, C)
        x = constrain_images(x).reshape(b, t, h * w, c)
        y = layer_norm(self.dtype, "norm1")(x) + time[:, :, None]
        attention = Attention(self.heads, c // self.heads, zero_init=True, dtype=self.dtype, name="attn1")
        x = x + over_frames(attention, y)
        x = x + FeedForward(zero_init=True, dtype=self.dtype, name="ff")(layer_norm(self.dtype, "norm2")(x))
        return x.reshape(n, h, w, c)


# Stable Video Diffusion (Blattmann et al. 2023), in the layout of diffusers' `UNetSpatioTemporalConditionModel`.


class TimeMixer(nn.Module):
    """Learned blend of a spatial and a temporal array of one shape.

    Attributes:
      share_of: "spatial" or "temporal", the array whose share is `sigmoid(mix_factor)`; the other's is the rest. In
        Stable Video Diffusion's UNet it is the spatial one, in its video decoder the temporal one.
    """

    share_of: str

    @nn.compact
    def __call__(self, spatial: jax.Array, temporal: jax.Array) -> jax.Array:
        share = nn.sigmoid(self.param("mix_factor", zeros_init, (1,))).astype(spatial.dtype)
        if self.share_of == "temporal":
            return (1 - share) * spatial + share * temporal
        return share * spatial + (1 - share) * temporal


class TemporalResnetBlock(nn.Module):
    """Residual block of two 1D convolutions over frames, with norms over frames and positions together.

    The second convolution starts at zero, so the block starts as the identity.
    """

    groups: int
    eps: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array | None = None) -> jax.Array:
        """x: `(B, T, H, W, C)`; temb: `(B*T, D)` or None; returns x's shape."""
        features = x.shape[-1]
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm1")(x))
        h = TemporalConv(features, self.dtype, name="conv1")(h)
        if temb is not None:
            shift = nn.Dense(features, dtype=self.dtype, name="time_emb_proj")(nn.silu(temb))
            h = h + shift.reshape(*x.shape[:2], 1, 1, features)
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm2")(h))
        return x + TemporalConv(features, self.dtype, kernel_init=zeros_init, name="conv2")(h)


class SpatioTemporalResBlock(nn.Module):
    """A 2D residual block, then one over frames on its output, blended with it.

    Attributes:
      features: channels of the output.
      groups: of the group norms.
      eps, temporal_eps: of the group norms of the 2D residual block and of the one over frames.
      num_frames: T.
      share_of: see `TimeMixer`.
    """

    features: int
    groups: int
    eps: float
    temporal_eps: float
    num_frames: int
    share_of: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array | None = None) -> jax.Array:
        """x: `(B*T, H, W, C)`; temb: `(B*T, D)` or None; returns `(B*T, H, W, features)`."""
        x = ResnetBlock(self.features, self.groups, self.eps, self.dtype, name="spatial_res_block")(x, temb)
        spatial = x.reshape(-1, self.num_frames, *x.shape[1:])
        over_time = TemporalResnetBlock(self.groups, self.temporal_eps, self.dtype, name="temporal_res_block")
        return TimeMixer(self.share_of, name="time_mixer")(spatial, over_time(spatial, temb)).reshape(x.shape)


class TemporalTransformerBlock(nn.Module):
    """Feed-forward, self-attention over frames, cross-attention, feed-forward; pre-norm, the identity until trained."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
        """x: `(B, T, S, C)`, S positions a frame; context: `(B, L, D)`; returns x's shape."""
        b, t, s, c = x.shape

        def attention(name):
            return Attention(self.heads, c // self.heads, zero_init=True, dtype=self.dtype, name=name)

        def feed_forward(name, y):
            return FeedForward(zero_init=True, dtype=self.dtype, name=name)(y)

        x = x + feed_forward("ff_in", layer_norm(self.dtype, "norm_in")(x))
        x = x + over_frames(attention("attn1"), layer_norm(self.dtype, "norm1")(x))
        queries = layer_norm(self.dtype, "norm2")(x).reshape(b, t * s, c)
        x = x + attention("attn2")(queries, context).reshape(x.shape)
        return x + feed_forward("ff", layer_norm(self.dtype, "norm3")(x))


class SpatioTemporalTransformer(SpatialTransformer):
    """A spatial transformer with a block over frames after each of its blocks, blended with what that block takes.

    The number of each frame is embedded, and added to the input of the blocks over frames, but not to what their output
    is blended with.
    """

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array, positions: jax.Array) -> jax.Array:
        """x: `(B*T, H, W, C)`; context: `(B, L, D)`; positions: `(B, T)`; returns x's shape."""
        x, c = constrain_images(x), x.shape[-1]
        embedding = TimestepEmbedding(c, self.dtype, zero_init=True, hidden_dim=4 * c, name="time_pos_embed")
        time = embedding(sinusoidal_embedding(positions, c).astype(self.dtype))[:, :, None]  # (B, T, 1, C)
        mix = TimeMixer("spatial", name="time_mixer")  # one for all blocks
        y = self.project_in(x)
        for i in range(self.depth):
            y = self.block(i)(y, context)
            spatial = y.reshape(*positions.shape, *y.shape[1:])  # (B, T, H*W, C)
            over_time = TemporalTransformerBlock(self.heads, self.dtype, name=f"temporal_transformer_blocks_{i}")
            y = mix(spatial, over_time(spatial + time, context)).reshape(y.shape)
        return x + self.project_out(y, x.shape)


# AnimateDiff (Guo et al. 2023) and ModelScope (Wang et al. 2023): transformers with two self-attentions in a block.


def interleaved_sinusoids(positions: jax.Array, dim: int) -> jax.Array:
    """Embed positions by sinusoids, sines at even channels and cosines at odd ones (Vaswani et al. 2017, section 3.5).

    Args:
      positions: any shape `(...)`.
      dim: size of the embedding, even.

    Returns: `(..., dim)` float32.
    """
    cosines, sines = jnp.split(sinusoidal_embedding(positions, dim), 2, axis=-1)
    return jnp.stack([sines, cosines], axis=-1).reshape(*cosines.shape[:-1], dim)


class FrameAttentionBlock(nn.Module):
    """Self-attention over frames, once or twice, and a feed-forward layer; each pre-norm with a residual."""

    heads: int
    attentions: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array | float) -> jax.Array:
        """x: `(B, T, S, C)`; time: `(B, T, 1, C)` or 0, added to the input of the attentions; returns x's shape."""
        for i in range(1, self.attentions + 1):
            y = layer_norm(self.dtype, f"norm{i}")(x) + time
            attention = Attention(self.heads, x.shape[-1] // self.heads, dtype=self.dtype, name=f"attn{i}")
            x = x + over_frames(attention, y)
        return x + FeedForward(dtype=self.dtype, name="ff")(layer_norm(self.dtype, "norm3")(x))


class FrameTransformer(nn.Module):
    """A transformer over the frames of each position; the identity until trained.

    It is diffusers' `AnimateDiffTransformer3D` and `TransformerTemporalModel`.

    Attributes:
      heads, head_dim: number and size of the heads; their product is the width inside.
      groups: of the group norm.
      norm: whether its statistics are those of a "frame" or of the whole "video".
      embed_positions: add the time of the frames to the input of each attention; without, frames have no order.
      attentions: of its block.
    """

    heads: int
    head_dim: int
    groups: int
    norm: str
    embed_positions: bool
    attentions: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """x: `(B*T, H, W, C)`; positions: `(B, T)`; returns x's shape."""
        (b, t), c, width = positions.shape, x.shape[-1], self.heads * self.head_dim
        x = constrain_images(x)
        normed = {"frame": x, "video": x.reshape(b, t, *x.shape[1:])}[self.norm]
        y = group_norm(self.groups, 1e-6, self.dtype, "norm")(normed).reshape(b, t, -1, c)
        y = nn.Dense(width, dtype=self.dtype, name="proj_in")(y)
        time = interleaved_sinusoids(positions, width).astype(self.dtype)[:, :, None] if self.embed_positions else 0.0
        y = FrameAttentionBlock(self.heads, self.attentions, self.dtype, name="transformer_blocks_0")(y, time)
        y = nn.Dense(c, dtype=self.dtype, kernel_init=zeros_init, name="proj_out")(y)
        return x + y.reshape(x.shape)


# ModelScope, in the layout of diffusers' `UNet3DConditionModel`.


class NormedTemporalConv(nn.Module):
    """Group norm over frames and positions, SiLU, 1D convolution over frames; the children have numbers for names.

    Attributes:
      groups: of the group norm.
      number: the name of the convolution: its place in a `Sequential` of PyTorch, whose first is the norm.
      zero_init: start the convolution at zero.
    """

    groups: int
    number: int
    zero_init: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: `(B, T, H, W, C)`; returns x's shape."""
        h = nn.silu(group_norm(self.groups, 1e-5, self.dtype, "0")(x))
        init = zeros_init if self.zero_init else nn.linear.default_kernel_init
        return TemporalConv(x.shape[-1], self.dtype, init, name=str(self.number))(h)


class TemporalConvs(nn.Module):
    """Four 1D convolutions over frames with a residual around all; the identity until trained."""

    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """x: `(B*T, H, W, C)`; positions: `(B, T)`; returns x's shape."""
        h = x.reshape(*positions.shape, *x.shape[1:])
        for i in range(1, 5):
            number = 2 if i == 1 else 3  # all except the first have dropout before them
            h = NormedTemporalConv(self.groups, number, i == 4, self.dtype, name=f"conv{i}")(h)
        return x + h.reshape(x.shape)
