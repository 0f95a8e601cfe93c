"""The latent UNet of Stable Diffusion (Rombach et al. 2022), for images and, with temporal layers, for videos.

An image is a video of one frame. The spatial layers have the names of diffusers' `UNet2DConditionModel`, with `name.0`
written `name_0`. The layers added to them (temporal ones, `reference_*`, the embeddings of `added_conditions`) start as
the identity, so a network with Stable Diffusion's weights gives Stable Diffusion's output on every frame.

Frames are joined in `UNetBlock.resnet` and `UNetBlock.attend`, and after `conv_in`, by the layers of one of the kinds
in models/temporal_kinds.py; `ReferenceAttention` stands between the spatial and the temporal transformers.
"""

from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import zeros as zeros_init

from videogen_jax.models.layers import (
    Downsample,
    TimestepEmbedding,
    Upsample,
    conv3x3,
    group_norm,
    sinusoidal_embedding,
)
from videogen_jax.models.temporal_kinds import KINDS, SPATIAL_HALF, TemporalLayers, is_temporal, kind_name
from videogen_jax.models.transformers import ReferenceAttention

NUM_ADDED_NUMBERS = 3  # frames per second, motion bucket, noise augmentation


class UNetBlock(nn.Module):
    """Residual blocks, each followed by transformers if the level has heads: the base of all blocks below.

    The arrays that the methods share:
      x: `(B*T, H, W, C)`, the frames of all videos.
      temb: `(B*T, D)`, the embedding of the timestep and the scalar conditions.
      context: `(B, L, cross_attention_dim)`, the text.
      positions: `(B, T)`, the time of each frame in frames.

    Attributes:
      features: channels of the level.
      layers: number of residual blocks.
      heads: number of attention heads, or 0 for a level without attention.
      reference_heads: number of heads that attend to the first frame, or 0.
      depth: number of transformer blocks in each spatial transformer.
      resample: whether the block ends by halving (down) or doubling (up) the resolution.
      groups, eps: of the group norms.
      use_linear_projection: of the spatial transformers.
      temporal: the layers that join frames.
      remat: recompute each residual block and transformer in the backward pass.
    """

    features: int
    layers: int
    heads: int
    reference_heads: int
    depth: int
    resample: bool
    groups: int
    eps: float
    use_linear_projection: bool
    temporal: TemporalLayers
    remat: bool
    dtype: jnp.dtype

    def resnet(self, j: int, x: jax.Array, temb: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply the residual block number j."""
        return self.temporal.resnet(self, j, x, temb, positions)

    def attend(self, j: int, x: jax.Array, context: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply the transformers that follow residual block j: within frames, to the first frame, over frames."""
        if self.heads:
            x = self.temporal.attend(self, j, x, context, positions)
        if self.reference_heads:
            reference = self.rematted(ReferenceAttention, static_argnums=(2,))
            x = reference(self.reference_heads, self.dtype, name=f"reference_attentions_{j}")(x, positions.shape[1])
        return self.temporal.attend_frames(self, j, x, positions)

    def rematted(self, module: type[nn.Module], static_argnums: tuple[int, ...] = ()) -> type[nn.Module]:
        """Return the module, such that it is recomputed in the backward pass if `remat` is set."""
        return nn.remat(module, static_argnums=static_argnums) if self.remat else module


class DownBlock(UNetBlock):
    """A level on the way down."""

    @nn.compact
    def __call__(self, x, temb, context, positions) -> tuple[jax.Array, list[jax.Array]]:
        """Return the output, of half the resolution if `resample`, and the skip connections to the up blocks."""
        skips = []
        for j in range(self.layers):
            x = self.attend(j, self.resnet(j, x, temb, positions), context, positions)
            skips.append(x)
        if self.resample:
            x = Downsample(self.features, dtype=self.dtype, name="downsamplers_0")(x)
            skips.append(x)
        return x, skips


class MidBlock(UNetBlock):
    """The lowest level: one residual block more than transformers."""

    @nn.compact
    def __call__(self, x, temb, context, positions) -> jax.Array:
        """Return an array of x's shape."""
        x = self.resnet(0, x, temb, positions)
        for j in range(self.layers - 1):
            x = self.attend(j, x, context, positions)
            x = self.resnet(j + 1, x, temb, positions)
        return x


class UpBlock(UNetBlock):
    """A level on the way up."""

    @nn.compact
    def __call__(self, x, skips, temb, context, positions) -> jax.Array:
        """Return the output, of double the resolution if `resample`.

        skips: one array `(B*T, H, W, C')` for each layer, the first used last.
        """
        for j in range(self.layers):
            x = jnp.concatenate([x, skips[-1 - j]], axis=-1)
            x = self.attend(j, self.resnet(j, x, temb, positions), context, positions)
        return Upsample(self.features, dtype=self.dtype, name="upsamplers_0")(x) if self.resample else x


def per_level(value: float | Sequence, levels: int, field: str) -> tuple:
    """Expand a field that has one value for all levels, or one for each, to a tuple of `levels` values."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * levels
    if len(values) != levels:
        raise ValueError(f"{field} has {len(values)} values, but block_out_channels has {levels} levels")
    return values


class UNet(nn.Module):
    """Text-conditional denoising network for latent images and videos.

    Attributes:
      in_channels: channels of the input: the noisy latents and, concatenated to them, reference, mask, lower stage.
      out_channels: channels of the prediction.
      block_out_channels: channels of each level; each level after the first halves the resolution.
      layers_per_block: residual blocks of a level on the way down (one more on the way up).
      cross_attention: for each level, whether it has transformers; the middle block always has.
      num_heads: attention heads, one number or one a level; the size of a head is channels / heads. (The configs of
        Stable Diffusion call this `attention_head_dim`.)
      transformer_layers_per_block: depth of the transformers, one number or one a level.
      use_linear_projection: as in Stable Diffusion 2.x.
      norm_num_groups, norm_eps: of the group norms of the residual blocks and of the output.
      down_norm_eps, up_norm_eps: of the residual blocks on the way down and on the way up, one number or one a level;
        None: `norm_eps`. Stable Video Diffusion has 1e-6 in down blocks with attention and in all up blocks.
      temporal: the kind of temporal layers, by its name in `temporal_kinds.KINDS`; None for a network for images.
      motion_norm, motion_max_frames, motion_mid_block, motion_attentions: of temporal="motion_module", see
        `MotionModules`.
      reference_attention: for each level, or for all, whether frames attend to the first one (`ReferenceAttention`).
      added_conditions: names of the scalar conditions besides the timestep, as ("noise_level", "fps"). Each is embedded
        like the timestep and added to its embedding by a layer that starts at zero.
      size_embedding_dim: for Stable Diffusion XL, which is conditioned on the pooled text and six numbers about the
        picture's size: channels of each number's embedding; None for the others.
      added_numbers_dim: for Stable Video Diffusion, which is conditioned on three numbers besides the timestep, but on
        no text: channels of each number's embedding; None for the others.
      remat: recompute each residual block and transformer in the backward pass: less memory, a third more compute.
      dtype: of the activations; parameters are float32.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    cross_attention: tuple[bool, ...] = (True, True, True, False)
    num_heads: int | tuple[int, ...] = 8
    cross_attention_dim: int = 768
    transformer_layers_per_block: int | tuple[int, ...] = 1
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    down_norm_eps: float | tuple[float, ...] | None = None
    up_norm_eps: float | tuple[float, ...] | None = None
    temporal: str | None = None
    motion_norm: str = "frame"
    motion_max_frames: int = 32
    motion_mid_block: bool = True
    motion_attentions: int = 2
    reference_attention: bool | tuple[bool, ...] = False
    added_conditions: tuple[str, ...] = ()
    size_embedding_dim: int | None = None
    added_numbers_dim: int | None = None
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        object.__setattr__(self, "temporal", kind_name(self.temporal))
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        context: jax.Array,
        scalar_conditions: Mapping[str, jax.Array] | None = None,
        frame_positions: jax.Array | None = None,
        pooled_text: jax.Array | None = None,
        sizes: jax.Array | None = None,
        added_numbers: jax.Array | None = None,
        control: tuple[Sequence[jax.Array], jax.Array] | None = None,
    ) -> jax.Array:
        """Predict what the network is trained for: noise, velocity or clean latents.

        Args:
          latents: `(B, T, H, W, in_channels)`; T = 1 for images, also in a network with temporal layers. H and W are
            divisible by 2 ** (levels - 1).
          timesteps: `(B,)`, 0 to 1000 in the scale of Stable Diffusion; Stable Video Diffusion's are 0.25 ln(sigma).
          context: `(B, L, cross_attention_dim)`, the text encoder's states.
          scalar_conditions: a `(B,)` array for each of `added_conditions`, best in the range of timesteps, 0 to 1000:
            differences below about 0.1 have no effect.
          frame_positions: `(B, T)`, the time of each frame in frames; 0 to T - 1 if None.
          pooled_text: `(B, P)`, only with `size_embedding_dim` (Podell et al. 2023, section 2.2).
          sizes: `(B, 6)`, only with `size_embedding_dim`: original height and width, top and left of the crop, target
            height and width, in pixels.
          added_numbers: `(B, 3)`, only with `added_numbers_dim`: frames per second less one, motion bucket, standard
            deviation of the noise that was added to the image (diffusers' `added_time_ids`).
          control: what is added to the skip connections and to the middle block's output, from `SparseControl`.

        Returns: `(B, T, H, W, out_channels)` in the network's dtype.

        Raises:
          ValueError: for fields that do not fit each other, or inputs that do not fit the fields.
        """
        heads, depths, reference_levels = self.check(
            latents, context, scalar_conditions, pooled_text, sizes, added_numbers
        )
        b, t, h, w, _ = latents.shape
        if frame_positions is None:
            frame_positions = jnp.broadcast_to(jnp.arange(t, dtype=jnp.float32), (b, t))
        elif frame_positions.shape != (b, t):
            raise ValueError(f"frame_positions must have shape {(b, t)}, not {frame_positions.shape}")
        context = context.astype(self.dtype)
        temb = self.embed_scalars(timesteps, scalar_conditions or {}, pooled_text, sizes, added_numbers)
        temb = jnp.repeat(temb, t, axis=0)  # (B*T, D)
        last = len(self.block_out_channels) - 1
        temporal = KINDS[self.temporal].of(self)
        temporal.check(self, t)
        block = self.block_builder(temporal, heads, depths, reference_levels)
        x = latents.reshape(b * t, h, w, -1)  # frames as a batch: the spatial layers do not know videos
        x = conv3x3(self.block_out_channels[0], self.dtype, "conv_in")(x)
        x = temporal.after_conv_in(self, x, frame_positions)
        x, skips = self.down_and_middle(block, x, temb, context, frame_positions)
        if control is not None:
            skips = [skip + added.astype(self.dtype) for skip, added in zip(skips, control[0], strict=True)]
            x = x + control[1].astype(self.dtype)
        up_eps = per_level(self.norm_eps if self.up_norm_eps is None else self.up_norm_eps, last + 1, "up_norm_eps")
        for i in range(last + 1):
            level, layers = last - i, self.layers_per_block + 1
            attention = self.cross_attention[level]
            up = block(UpBlock, level, layers, level > 0, attention, up_eps[level], f"up_blocks_{i}")
            x = up(x, skips[-layers:], temb, context, frame_positions)
            del skips[-layers:]
        x = nn.silu(group_norm(self.norm_num_groups, self.norm_eps, self.dtype, "conv_norm_out")(x))
        x = conv3x3(self.out_channels, self.dtype, "conv_out", kernel_init=zeros_init)(x)
        return x.reshape(b, t, h, w, self.out_channels)

    def block_builder(self, temporal: TemporalLayers, heads: tuple, depths: tuple, reference_levels: tuple) -> Callable:
        """Return a function that builds the block of a level, with the fields that follow from the network's."""

        def block(module, level, layers, resample, attention, eps, name):
            return module(
                features=self.block_out_channels[level],
                layers=layers,
                heads=heads[level] if attention else 0,
                reference_heads=heads[level] if reference_levels[level] else 0,
                depth=depths[level],
                resample=resample,
                groups=self.norm_num_groups,
                eps=eps,
                use_linear_projection=self.use_linear_projection,
                temporal=temporal.middle() if module is MidBlock else temporal,
                remat=self.remat,
                dtype=self.dtype,
                name=name,
            )

        return block

    def down_and_middle(self, block: Callable, x, temb, context, positions) -> tuple[jax.Array, list[jax.Array]]:
        """Apply the levels on the way down and the middle block: its output, and the skip connections."""
        last, skips = len(self.block_out_channels) - 1, [x]
        eps = per_level(self.norm_eps if self.down_norm_eps is None else self.down_norm_eps, last + 1, "down_norm_eps")
        for i, attention in enumerate(self.cross_attention):
            down = block(DownBlock, i, self.layers_per_block, i < last, attention, eps[i], f"down_blocks_{i}")
            x, outputs = down(x, temb, context, positions)
            skips += outputs
        middle = block(MidBlock, last, 2, False, True, self.norm_eps, "mid_block")
        return middle(x, temb, context, positions), skips

    def embed_scalars(self, timesteps, scalar_conditions, pooled_text, sizes, added_numbers) -> jax.Array:
        """Return `(B, 4 * block_out_channels[0])`: the timestep's embedding plus those of the added conditions."""
        width = self.block_out_channels[0]

        def embed(values, layers):
            return layers(sinusoidal_embedding(values, width).astype(self.dtype))

        temb = embed(timesteps, TimestepEmbedding(4 * width, self.dtype, name="time_embedding"))
        for name in self.added_conditions:
            temb = temb + embed(scalar_conditions[name], self.condition_embedding(name))
        if self.size_embedding_dim is not None:
            added = sinusoidal_embedding(sizes, self.size_embedding_dim).reshape(sizes.shape[0], -1)
            added = jnp.concatenate([pooled_text, added], axis=-1).astype(self.dtype)
            temb = temb + TimestepEmbedding(4 * width, self.dtype, name="add_embedding")(added)
        if self.added_numbers_dim is not None:
            added = sinusoidal_embedding(added_numbers, self.added_numbers_dim).reshape(added_numbers.shape[0], -1)
            embedding = TimestepEmbedding(4 * width, self.dtype, zero_init=True, name="added_numbers_embedding")
            temb = temb + embedding(added.astype(self.dtype))
        return temb

    def condition_embedding(self, name: str) -> nn.Module:
        """Return the layers that embed the sinusoids of one of the added conditions; zero until trained."""
        return TimestepEmbedding(4 * self.block_out_channels[0], self.dtype, zero_init=True, name=f"{name}_embedding")

    def check(
        self, latents, context, scalar_conditions, pooled_text, sizes, added_numbers
    ) -> tuple[tuple, tuple, tuple]:
        """Check fields and inputs against each other.

        Returns: for each level the heads, the depth of the transformers, and whether it has reference attention.
        """
        levels = len(self.block_out_channels)
        if len(self.cross_attention) != levels:
            raise ValueError(
                f"cross_attention has {len(self.cross_attention)} values, but block_out_channels has {levels} levels"
            )
        heads = per_level(self.num_heads, levels, "num_heads")
        for channels, level_heads in zip(self.block_out_channels, heads, strict=True):
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"norm_num_groups {self.norm_num_groups} must divide the {channels} of block_out_channels"
                )
            if channels % level_heads:
                raise ValueError(f"num_heads {level_heads} must divide the {channels} of block_out_channels")
        if latents.ndim != 5 or latents.shape[-1] != self.in_channels:
            raise ValueError(f"latents must have shape (B, T, H, W, {self.in_channels}), not {latents.shape}")
        multiple = 2 ** (levels - 1)
        if latents.shape[2] % multiple or latents.shape[3] % multiple:
            height, width = latents.shape[2:4]
            raise ValueError(f"latents of {height}x{width} must have a height and width divisible by {multiple}")
        if context.ndim != 3 or context.shape[0] != latents.shape[0] or context.shape[2] != self.cross_attention_dim:
            raise ValueError(
                f"context must have shape ({latents.shape[0]}, L, {self.cross_attention_dim}), not {context.shape}"
            )
        if set(scalar_conditions or {}) != set(self.added_conditions):
            names = ", ".join(sorted(scalar_conditions or {})) or "none"
            raise ValueError(f"scalar_conditions must be {', '.join(self.added_conditions) or 'none'}, not {names}")
        if (pooled_text is not None, sizes is not None) != (self.size_embedding_dim is not None,) * 2:
            raise ValueError("pooled_text and sizes belong to a UNet with size_embedding_dim, and to no other")
        if self.added_numbers_dim is None and added_numbers is not None:
            raise ValueError("added_numbers belong to a UNet with added_numbers_dim, and to no other")
        if self.added_numbers_dim is not None and np.shape(added_numbers) != (latents.shape[0], NUM_ADDED_NUMBERS):
            raise ValueError(
                f"added_numbers must have shape {(latents.shape[0], NUM_ADDED_NUMBERS)}, not {np.shape(added_numbers)}"
            )
        depths = per_level(self.transformer_layers_per_block, levels, "transformer_layers_per_block")
        return heads, depths, per_level(self.reference_attention, levels, "reference_attention")


def image_part(params: Mapping, image_channels: int = 4) -> dict:
    """Return the shapes of the 2D UNet inside a video UNet, whose parameters `inflate_unet` takes.

    Args:
      params: parameters of a `UNet` with temporal layers of any kind, or their shapes.
      image_channels: channels of the 2D UNet's input.

    Returns: nested dict of `jax.ShapeDtypeStruct` without temporal layers and added conditions.
    """

    def spatial(tree: Mapping) -> dict:
        if SPATIAL_HALF in tree:
            return spatial(tree[SPATIAL_HALF])
        return {name: spatial(x) if isinstance(x, Mapping) else x for name, x in tree.items() if not _is_added(name)}

    tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), spatial(params))
    kernel = tree["conv_in"]["kernel"]
    shape = (*kernel.shape[:2], image_channels, kernel.shape[3])
    return {**tree, "conv_in": {**tree["conv_in"], "kernel": jax.ShapeDtypeStruct(shape, kernel.dtype)}}


def inflate_unet(image_params: Mapping, video_params: Mapping, reference_init: float = 0.0) -> dict:
    """Return initial parameters of a video UNet that equals a 2D UNet on every frame (VideoGen, section 4.1).

    The first convolution is widened with zeros for the channels that are concatenated to the noisy latents, so these
    have no effect until trained; temporal layers and added conditions keep their initial values, the identity.

    Args:
      image_params: parameters of the 2D UNet, in the shapes of `image_part(video_params)`.
      video_params: freshly initialised parameters of the video UNet.
      reference_init: above 0, the kernel of the channels after the noisy latents, the reference's, starts as that of
        the noisy latents times this number.

    Returns: parameters in the shapes of `video_params`.
    """

    def fill(target: Mapping, source: Mapping) -> dict:
        out = {}
        for name, value in target.items():
            if _is_added(name):
                out[name] = value
            elif name == SPATIAL_HALF:
                out[name] = fill(value, source)
            else:
                out[name] = fill(value, source[name]) if isinstance(value, Mapping) else source[name]
        return out

    params = fill(video_params, image_params)
    kernel = jnp.asarray(params["conv_in"]["kernel"])
    joined = video_params["conv_in"]["kernel"].shape[2] - kernel.shape[2]
    reference = (reference_init * kernel)[:, :, :joined]
    zeros = jnp.zeros((*kernel.shape[:2], joined - reference.shape[2], kernel.shape[3]), kernel.dtype)
    params["conv_in"]["kernel"] = jnp.concatenate([kernel, reference, zeros], axis=2)
    return params


def _is_added(name: str) -> bool:
    """Whether a module of this name is added to the layers of the 2D UNet."""
    return (
        is_temporal(name)
        or name.startswith("reference_")
        or (name.endswith("_embedding") and name not in ("time_embedding", "add_embedding"))
    )
