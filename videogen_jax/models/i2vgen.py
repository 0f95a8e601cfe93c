"""I2VGen-XL's network (Zhang et al. 2023): ModelScope's video UNet, conditioned on an image and a frame rate too.

Layers and names are those of diffusers' `I2VGenXLUNet`; the children of its `Sequential`s have numbers for names.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.models.layers import Attention, conv3x3
from videogen_jax.models.temporal_layers import over_frames
from videogen_jax.models.transformers import gelu, layer_norm
from videogen_jax.models.unet import UNet

POOLED_SIDE = 32  # of the image latents before they are made tokens of the context
IMAGE_HEADS = 2  # of the attention over the frames of the image latents


def image_latents_of(latents: jax.Array, num_frames: int) -> jax.Array:
    """Return what the network takes as `image_latents`: an image, then a mask of each later frame's place in the video.

    Args:
      latents: of the image, `(B, H, W, C)`, scaled to unit variance.
      num_frames: T, at least 1.

    Returns: `(B, T, H, W, C)`: the image, then frames of the constant i / (T - 1) for i from 1 to T - 1.
    """
    place = jnp.linspace(0.0, 1.0, num_frames, dtype=latents.dtype)[1:, None, None, None]
    later = jnp.broadcast_to(place, (latents.shape[0], num_frames - 1, *latents.shape[1:]))
    return jnp.concatenate([latents[:, None], later], axis=1)


def adaptive_average(size: int, bins: int) -> np.ndarray:
    """Return the matrix `(bins, size)` of PyTorch's adaptive average pooling along one axis.

    Bin i is the mean of the elements from floor(i size / bins) up to ceil((i + 1) size / bins); bins overlap where
    `bins` does not divide `size`.
    """
    starts = np.arange(bins) * size // bins
    ends = -(-(np.arange(1, bins + 1) * size) // bins)
    element = np.arange(size)
    inside = (element >= starts[:, None]) & (element < ends[:, None])
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


class TwoLinear(nn.Module):
    """Linear layer, SiLU, linear layer: `(..., C)` -> `(..., features)`.

    Attributes:
      hidden: channels between the two.
      features: channels of the result.
    """

    hidden: int
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.silu(nn.Dense(self.hidden, dtype=self.dtype, name="0")(x))
        return nn.Dense(self.features, dtype=self.dtype, name="2")(x)


class ImageLatentsProjection(nn.Module):
    """Three convolutions within frames: `(N, H, W, C)` -> same shape."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        x = nn.silu(conv3x3(4 * channels, self.dtype, "0")(x))
        x = nn.silu(conv3x3(4 * channels, self.dtype, "2")(x))
        return conv3x3(channels, self.dtype, "4")(x)


class ImageLatentsContext(nn.Module):
    """The image's latents as tokens of the context: `(B, H, W, C)` -> `(B, 64, features)`."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        x = nn.silu(conv3x3(8 * channels, self.dtype, "0")(x))
        rows, columns = (adaptive_average(size, POOLED_SIDE) for size in (height, width))
        x = jnp.einsum("ih,bhwc,jw->bijc", rows, x.astype(jnp.float32), columns).astype(self.dtype)
        x = nn.silu(conv3x3(16 * channels, self.dtype, "3", strides=(2, 2))(x))
        x = conv3x3(self.features, self.dtype, "5", strides=(2, 2))(x)
        return x.reshape(batch, -1, self.features)


class GELULayer(nn.Module):
    """Linear layer and exact GELU: `(..., C)` -> `(..., features)`."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return gelu(nn.Dense(self.features, dtype=self.dtype, name="proj")(x))


class GELUFeedForward(nn.Module):
    """Four times the width without a gate, and back: `(..., C)` -> `(..., C)`."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = GELULayer(4 * x.shape[-1], self.dtype, name="net_0")(x)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="net_2")(h)


class ImageLatentsEncoder(nn.Module):
    """Attention over the frames of each position, and a feed-forward layer without a norm, both with a residual."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: `(B, T, H, W, C)`; returns x's shape."""
        b, t, _, _, c = x.shape
        y = x.reshape(b, t, -1, c)
        attention = Attention(IMAGE_HEADS, c, dtype=self.dtype, name="attn1")
        y = y + over_frames(attention, layer_norm(self.dtype, "norm1")(y))
        return (y + GELUFeedForward(self.dtype, name="ff")(y)).reshape(x.shape)


class I2VGenXLUNet(UNet):
    """The UNet with the layers that read the image and the frame rate.

    Its fields are the UNet's. `in_channels` is the noisy latents' and the image latents' together, twice
    `out_channels`; `added_conditions` is the frame rate alone.
    """

    in_channels: int = 8
    num_heads: int | tuple[int, ...] = (5, 10, 20, 20)
    cross_attention_dim: int = 1024
    use_linear_projection: bool = True
    temporal: str | None = "temporal_transformer"
    added_conditions: tuple[str, ...] = ("fps",)

    @nn.compact
    def __call__(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        context: jax.Array,
        image_latents: jax.Array,
        image_embedding: jax.Array,
        fps: jax.Array,
    ) -> jax.Array:
        """Predict what the network is trained for, the velocity.

        Args:
          latents: noisy, `(B, T, H, W, C)`.
          timesteps: `(B,)`, 0 to 1000.
          context: `(B, L, cross_attention_dim)`, the states of the text.
          image_latents: `(B, T, H, W, C)`, as from `image_latents_of`.
          image_embedding: `(B, cross_attention_dim)`, CLIP's embedding of the image; zeros for the unconditional pass.
          fps: `(B,)`, frames per second.

        Returns: `(B, T, H, W, out_channels)` in the network's dtype.

        Raises:
          ValueError: as `UNet`, or for image inputs that do not fit the others.
        """
        batch, width, dim = latents.shape[0], self.block_out_channels[0], self.cross_attention_dim
        if image_latents.shape != latents.shape:
            raise ValueError(
                f"image_latents must have the shape of the latents, {latents.shape}, not {image_latents.shape}"
            )
        if image_embedding.shape != (batch, dim):
            raise ValueError(f"image_embedding must have shape {(batch, dim)}, not {image_embedding.shape}")
        image_latents, channels = image_latents.astype(self.dtype), latents.shape[-1]
        tokens = ImageLatentsContext(dim, self.dtype, name="image_latents_context_embedding")(image_latents[:, 0])
        embedded = TwoLinear(4 * width, channels * dim, self.dtype, name="context_embedding")(image_embedding)
        context = jnp.concatenate([context.astype(self.dtype), tokens, embedded.reshape(batch, channels, dim)], axis=1)
        frames = image_latents.reshape(-1, *image_latents.shape[2:])
        frames = ImageLatentsProjection(self.dtype, name="image_latents_proj_in")(frames).reshape(latents.shape)
        frames = ImageLatentsEncoder(self.dtype, name="image_latents_temporal_encoder")(frames)
        joined = jnp.concatenate([latents.astype(self.dtype), frames], axis=-1)
        return super().__call__(joined, timesteps, context, {"fps": fps})

    def condition_embedding(self, name: str) -> nn.Module:
        """Return the layers that embed the frame rate."""
        width = 4 * self.block_out_channels[0]
        return TwoLinear(width, width, self.dtype, name=f"{name}_embedding")
