"""Stable Diffusion's KL autoencoder and the video decoder in the layout of Stable Video Diffusion's temporal decoder.

Layouts follow diffusers' `AutoencoderKL` and `AutoencoderKLTemporalDecoder`. The video decoder's spatial half has the
parameters of the image decoder under `spatial_res_block`, and its temporal half starts as the identity, so with an
image decoder's weights (`inflate_decoder`) it is exactly that image decoder on every frame.
"""

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from videogen_jax.models.layers import (
    Downsample,
    ResnetBlock,
    SpatialAttention,
    Upsample,
    conv3x3,
    group_norm,
)
from videogen_jax.models.temporal_layers import SpatioTemporalResBlock, TemporalConv

EPS = 1e-6  # every group norm of the autoencoder


@flax.struct.dataclass
class DiagonalGaussian:
    """Posterior q(z|x) of the autoencoder.

    Attributes:
      mean, log_variance: `(N, h, w, C)`.
    """

    mean: jax.Array
    log_variance: jax.Array

    def sample(self, rng: jax.Array) -> jax.Array:
        """Draw latents `(N, h, w, C)`."""
        noise = jax.random.normal(rng, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def kl(self) -> jax.Array:
        """Return the KL divergence to N(0, I), a mean over elements, in nats (Kingma and Welling 2014, appendix B)."""
        return 0.5 * jnp.mean(self.mean**2 + jnp.exp(self.log_variance) - 1.0 - self.log_variance)


class MidBlock(nn.Module):
    """Two residual blocks with a single-head self-attention between them: `(N, h, w, C)` -> same shape."""

    features: int
    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        block = {"groups": self.groups, "eps": EPS, "dtype": self.dtype}
        x = ResnetBlock(self.features, **block, name="resnets_0")(x)
        x = SpatialAttention(**block, name="attentions_0")(x)
        return ResnetBlock(self.features, **block, name="resnets_1")(x)


class DownBlock(nn.Module):
    """Residual blocks of a level: `(N, H, W, C)` -> `(N, H, W, features)`, half of H and W with `downsample`."""

    features: int
    num_layers: int
    downsample: bool
    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.num_layers):
            x = ResnetBlock(self.features, self.groups, EPS, dtype=self.dtype, name=f"resnets_{i}")(x)
        if self.downsample:
            x = Downsample(self.features, asymmetric=True, dtype=self.dtype, name="downsamplers_0")(x)
        return x


class UpBlock(nn.Module):
    """Residual blocks of a level: `(N, h, w, C)` -> `(N, h, w, features)`, twice h and w with `upsample`."""

    features: int
    num_layers: int
    upsample: bool
    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.num_layers):
            x = ResnetBlock(self.features, self.groups, EPS, dtype=self.dtype, name=f"resnets_{i}")(x)
        if self.upsample:
            x = Upsample(self.features, dtype=self.dtype, name="upsamplers_0")(x)
        return x


class Encoder(nn.Module):
    """Frames `(N, H, W, 3)` in [-1, 1] -> moments `(N, h, w, 2 * latent_channels)`."""

    latent_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        last = len(self.block_out_channels) - 1
        x = conv3x3(self.block_out_channels[0], self.dtype, "conv_in")(x)
        for i, features in enumerate(self.block_out_channels):
            x = DownBlock(features, self.layers_per_block, i < last, self.groups, self.dtype, name=f"down_blocks_{i}")(
                x
            )
        x = MidBlock(self.block_out_channels[-1], self.groups, self.dtype, name="mid_block")(x)
        x = nn.silu(group_norm(self.groups, EPS, self.dtype, "conv_norm_out")(x))
        return conv3x3(2 * self.latent_channels, self.dtype, "conv_out")(x)


class Decoder(nn.Module):
    """Latents `(N, h, w, C)` -> frames `(N, H, W, 3)` in [-1, 1] (not clipped)."""

    out_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        last = len(self.block_out_channels) - 1
        x = conv3x3(self.block_out_channels[-1], self.dtype, "conv_in")(z)
        x = MidBlock(self.block_out_channels[-1], self.groups, self.dtype, name="mid_block")(x)
        for i, features in enumerate(reversed(self.block_out_channels)):
            layers = self.layers_per_block + 1
            x = UpBlock(features, layers, i < last, self.groups, self.dtype, name=f"up_blocks_{i}")(x)
        x = nn.silu(group_norm(self.groups, EPS, self.dtype, "conv_norm_out")(x))
        return conv3x3(self.out_channels, self.dtype, "conv_out")(x)


class AutoencoderKL(nn.Module):
    """Stable Diffusion's autoencoder (Rombach et al. 2022).

    Latents are unscaled here: `FrozenAutoencoder` (in stages/) shifts and scales them to unit variance.

    Attributes:
      in_channels, out_channels: of the images, before and after.
      latent_channels: C of the latents.
      block_out_channels: channels of each level; each level after the first halves the resolution.
      layers_per_block: residual blocks of a level of the encoder (one more in the decoder).
      norm_num_groups: of all group norms.
      use_quant_conv, use_post_quant_conv: a 1x1 convolution after the encoder, and before the decoder.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        channels = tuple(self.block_out_channels)
        shape = (channels, self.layers_per_block, self.norm_num_groups, self.dtype)
        self.encoder = Encoder(self.latent_channels, *shape)
        self.decoder = self.make_decoder(shape)
        if self.use_quant_conv:
            self.quant_conv = nn.Conv(2 * self.latent_channels, (1, 1), dtype=self.dtype)
        if self.use_post_quant_conv:
            self.post_quant_conv = nn.Conv(self.latent_channels, (1, 1), dtype=self.dtype)

    @nn.nowrap
    def make_decoder(self, shape: tuple) -> nn.Module:
        """Build the decoder. shape: channels of the levels, layers per block, groups and dtype."""
        return Decoder(self.out_channels, *shape)

    @property
    def downsampling(self) -> int:
        """Side of the square of pixels that one position of the latents covers."""
        return 2 ** (len(self.block_out_channels) - 1)

    def encode(self, images: jax.Array) -> DiagonalGaussian:
        """Return the posterior of images `(N, H, W, 3)` in [-1, 1]; its arrays are `(N, h, w, C)`.

        Raises:
          ValueError: `downsampling` does not divide H and W.
        """
        if images.shape[1] % self.downsampling or images.shape[2] % self.downsampling:
            raise ValueError(f"frames of {images.shape[1:3]} pixels do not divide by {self.downsampling}")
        moments = self.encoder(images)
        if self.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return DiagonalGaussian(mean, jnp.clip(log_variance, -30.0, 20.0))

    def decode(self, latents: jax.Array) -> jax.Array:
        """Decode unscaled latents `(N, h, w, C)` to images `(N, H, W, 3)` in [-1, 1] (not clipped)."""
        return self.decoder(self.post_quant_conv(latents) if self.use_post_quant_conv else latents)

    def __call__(self, images: jax.Array, rng: jax.Array) -> tuple[jax.Array, DiagonalGaussian]:
        """Return the reconstruction of images `(N, H, W, 3)` from a sample of their posterior, and the posterior."""
        posterior = self.encode(images)
        return self.decode(posterior.sample(rng)), posterior


def _res_block(features: int, groups: int, num_frames: int, remat: bool, dtype: jnp.dtype, name: str) -> nn.Module:
    """Return a residual block of the video decoder, such that the backward pass recomputes it with `remat`."""
    module = nn.remat(SpatioTemporalResBlock) if remat else SpatioTemporalResBlock
    return module(features, groups, EPS, 1e-5, num_frames, share_of="temporal", dtype=dtype, name=name)


class TemporalMidBlock(nn.Module):
    """`MidBlock` with temporal layers and any number of residual blocks: `(B*T, h, w, C)` -> same shape."""

    features: int
    num_layers: int
    groups: int
    remat: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, num_frames: int) -> jax.Array:
        def block(i):
            return _res_block(self.features, self.groups, num_frames, self.remat, self.dtype, f"resnets_{i}")

        x = block(0)(x)
        if self.num_layers > 1:
            x = SpatialAttention(groups=self.groups, eps=EPS, dtype=self.dtype, name="attentions_0")(x)
            x = block(1)(x)
        for i in range(2, self.num_layers):
            x = block(i)(x)
        return x


class TemporalUpBlock(nn.Module):
    """`UpBlock` with temporal layers: `(B*T, h, w, C)` -> `(B*T, h, w, features)`, twice h and w with `upsample`."""

    features: int
    num_layers: int
    upsample: bool
    groups: int
    remat: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, num_frames: int) -> jax.Array:
        for i in range(self.num_layers):
            x = _res_block(self.features, self.groups, num_frames, self.remat, self.dtype, f"resnets_{i}")(x)
        if self.upsample:
            x = Upsample(self.features, dtype=self.dtype, name="upsamplers_0")(x)
        return x


def _same_frame(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Initialise the kernel (3, 1, 1, C, C) of a temporal convolution such that it returns its input."""
    return jnp.zeros(shape, dtype).at[1, 0, 0].set(jnp.eye(*shape[-2:], dtype=dtype))


class TemporalDecoder(nn.Module):
    """Video decoder with the layout of Stable Video Diffusion's.

    Attributes:
      out_channels, latent_channels, block_out_channels, layers_per_block, norm_num_groups: as `AutoencoderKL`'s.
      mid_block_layers: residual blocks in the middle. An image decoder always has two, Stable Video Diffusion's as many
        as `layers_per_block`.
      use_post_quant_conv: Stable Video Diffusion's has none; a decoder that starts from an image autoencoder with one
        needs it.
      remat: recompute each residual block in the backward pass: at 512x512 a level's activations would fill a chip.
    """

    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    mid_block_layers: int = 2
    norm_num_groups: int = 32
    use_post_quant_conv: bool = False
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, latents: jax.Array) -> jax.Array:
        """Decode unscaled latents `(B, T, h, w, C)` to frames `(B, T, H, W, 3)` in [-1, 1] (not clipped)."""
        batch, num_frames = latents.shape[:2]
        groups, dtype, channels = self.norm_num_groups, self.dtype, tuple(self.block_out_channels)
        x = latents.reshape(-1, *latents.shape[2:])
        if self.use_post_quant_conv:
            x = nn.Conv(self.latent_channels, (1, 1), dtype=dtype, name="post_quant_conv")(x)
        x = conv3x3(channels[-1], dtype, "conv_in")(x)
        x = TemporalMidBlock(channels[-1], self.mid_block_layers, groups, self.remat, dtype, name="mid_block")(
            x, num_frames
        )
        for i, features in enumerate(reversed(channels)):
            upsample = i < len(channels) - 1
            layers = self.layers_per_block + 1
            block = TemporalUpBlock(features, layers, upsample, groups, self.remat, dtype, name=f"up_blocks_{i}")
            x = block(x, num_frames)
        x = nn.silu(group_norm(groups, EPS, dtype, "conv_norm_out")(x))
        x = conv3x3(self.out_channels, dtype, "conv_out")(x)
        x = x.reshape(batch, num_frames, *x.shape[1:])
        return TemporalConv(self.out_channels, dtype, kernel_init=_same_frame, name="time_conv_out")(x)


class AutoencoderKLTemporalDecoder(AutoencoderKL):
    """Stable Video Diffusion's autoencoder: the encoder of `AutoencoderKL`, and a `TemporalDecoder` alone.

    It has no decoder of images. `decode` gives each image as a clip of one frame to the video decoder, whose temporal
    layers then see no neighbours: good enough for previews. Decode videos by the `TemporalDecoder` itself.

    Attributes: as `AutoencoderKL`'s. The decoder has as many residual blocks in the middle as `layers_per_block`.
    """

    use_post_quant_conv: bool = False

    @nn.nowrap
    def make_decoder(self, shape: tuple) -> nn.Module:
        channels, layers, groups, dtype = shape
        return TemporalDecoder(
            self.out_channels, self.latent_channels, channels, layers, layers, norm_num_groups=groups, dtype=dtype
        )

    def decode(self, latents: jax.Array) -> jax.Array:
        """Decode unscaled latents `(N, h, w, C)`, each by itself, to images `(N, H, W, 3)` in [-1, 1] (not clipped)."""
        latents = self.post_quant_conv(latents) if self.use_post_quant_conv else latents
        return self.decoder(latents[:, None])[:, 0]


def inflate_decoder(autoencoder_params: Mapping, temporal_params: Mapping) -> dict:
    """Return initial parameters of a `TemporalDecoder` that equals the image decoder on every frame.

    Args:
      autoencoder_params: parameters of `AutoencoderKL`.
      temporal_params: freshly initialised parameters of a `TemporalDecoder` of the same widths.

    Returns: parameters in the shapes of `temporal_params`.

    Raises:
      ValueError: a spatial parameter, which the message names, has no counterpart of its shape.
    """
    source = {**autoencoder_params["decoder"]}
    if "post_quant_conv" in autoencoder_params:
        source["post_quant_conv"] = autoencoder_params["post_quant_conv"]
        if "post_quant_conv" not in temporal_params:
            raise ValueError("the autoencoder has a post_quant_conv: the video decoder needs use_post_quant_conv=True")
    temporal_only = ("temporal_res_block", "time_mixer", "time_conv_out")

    def fill(target: Mapping, source: Mapping, path: str) -> dict:
        out = {}
        for name, value in target.items():
            where = f"{path}/{name}"
            if name in temporal_only:
                out[name] = value
            elif name == "spatial_res_block":
                out[name] = fill(value, source, where)
            elif name not in source:
                raise ValueError(f"the image decoder has no parameter {where} to start the video decoder from")
            elif isinstance(value, Mapping):
                out[name] = fill(value, source[name], where)
            elif value.shape != source[name].shape:
                raise ValueError(f"{where} is {source[name].shape} in the image decoder, {value.shape} in the video's")
            else:
                out[name] = source[name]
        return out

    return fill(temporal_params, source, "decoder")
