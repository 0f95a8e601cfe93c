"""Where the temporal layers of each kind of video network stand in a UNet.

A kind is a subclass of `TemporalLayers`; `KINDS` has them by the name that `UNet.temporal` takes. Blocks and spatial
layers do not know which kind they are part of. What a kind adds to a 2D UNet starts as the identity.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from videogen_jax.models.layers import ResnetBlock
from videogen_jax.models.temporal_layers import (
    FrameTransformer,
    PseudoResnetBlock,
    ResidualTemporalConv,
    SpatioTemporalResBlock,
    SpatioTemporalTransformer,
    TemporalConvs,
    TemporalTransformer,
)
from videogen_jax.models.transformers import SpatialTransformer

HEADS = 8  # of every motion module and of ModelScope's first transformer over frames, whatever the level
SPATIAL_HALF = "spatial_res_block"  # the 2D residual block inside one of Stable Video Diffusion's
MOTION_NORMS = ("frame", "video")


class Network(Protocol):
    """What a kind reads of a UNet: some of the fields of `unet.UNet`."""

    block_out_channels: tuple[int, ...]
    num_heads: int | tuple[int, ...]
    norm_num_groups: int
    motion_norm: str
    motion_max_frames: int
    motion_mid_block: bool
    motion_attentions: int
    remat: bool
    dtype: jnp.dtype


class Block(Protocol):
    """What a kind reads of a level of a UNet: some of the fields of `unet.UNetBlock`."""

    features: int
    heads: int
    depth: int
    groups: int
    eps: float
    use_linear_projection: bool
    dtype: jnp.dtype

    def rematted(self, module: type[nn.Module], static_argnums: tuple[int, ...] = ()) -> type[nn.Module]: ...


@dataclasses.dataclass(frozen=True)
class TemporalLayers:
    """Where a UNet has temporal layers; this base class: nowhere, as in a network for images.

    The methods are called inside the compact method of the UNet, or of the block, that they add layers to.
    """

    added: ClassVar[tuple[str, ...]] = ()
    """How the names of the layers begin that this kind adds to the 2D UNet's."""

    @classmethod
    def of(cls, unet: Network) -> "TemporalLayers":
        """Return the kind with the settings that it has in this UNet."""
        del unet
        return cls()

    def check(self, unet: Network, num_frames: int) -> None:
        """Raise ValueError if a UNet of these fields cannot have such layers, or so many frames."""

    def after_conv_in(self, unet: Network, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply the layers that follow the UNet's first convolution. x: `(B*T, H, W, C)`; returns the same shape."""
        del unet, positions
        return x

    def resnet(self, block: Block, j: int, x: jax.Array, temb: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply residual block j. x: `(B*T, H, W, C)`; temb: `(B*T, D)`; returns `(B*T, H, W, features)`."""
        del positions
        module = block.rematted(ResnetBlock)
        return module(block.features, block.groups, block.eps, block.dtype, name=f"resnets_{j}")(x, temb)

    def attend(self, block: Block, j: int, x: jax.Array, context: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply transformer j within frames. x: `(B*T, H, W, C)`; context: `(B, L, D)`; returns x's shape."""
        del positions
        return block.rematted(SpatialTransformer)(**self.transformer_fields(block, j))(x, context)

    def attend_frames(self, block: Block, j: int, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply what comes after the transformers of layer j, in levels without these too. Returns x's shape."""
        del block, j, positions
        return x

    def middle(self) -> "TemporalLayers":
        """The temporal layers of the middle block."""
        return self

    @staticmethod
    def transformer_fields(block: Block, j: int) -> dict:
        """Fields of the `SpatialTransformer` number j of a block."""
        return {
            "heads": block.heads,
            "depth": block.depth,
            "use_linear_projection": block.use_linear_projection,
            "groups": block.groups,
            "dtype": block.dtype,
            "name": f"attentions_{j}",
        }


class MakeAVideo(TemporalLayers):
    """This project's own: 1D convolutions after 2D ones, attention over frames after spatial transformers."""

    added = ("temporal_",)

    def after_conv_in(self, unet: Network, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply the 1D convolution that follows the first 2D convolution."""
        return ResidualTemporalConv(unet.dtype, name="temporal_conv_in")(x, positions.shape[1])

    def resnet(self, block: Block, j: int, x: jax.Array, temb: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply residual block j with its convolutions over frames."""
        module = block.rematted(PseudoResnetBlock)
        fields = (block.features, block.groups, block.eps, block.dtype, positions.shape[1])
        return module(*fields, name=f"resnets_{j}")(x, temb)

    def attend_frames(self, block: Block, j: int, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply attention over frames, in levels with transformers."""
        if not block.heads:
            return x
        return block.rematted(TemporalTransformer)(block.heads, block.dtype, name=f"temporal_attentions_{j}")(
            x, positions
        )


class SpatioTemporal(TemporalLayers):
    """Stable Video Diffusion's: blocks over frames inside each residual block and each transformer."""

    added = ("temporal_", "time_mixer", "time_pos_embed")

    def resnet(self, block: Block, j: int, x: jax.Array, temb: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply residual block j within frames and over frames."""
        fields = (block.features, block.groups, block.eps, block.eps, positions.shape[1])
        module = block.rematted(SpatioTemporalResBlock)
        return module(*fields, share_of="spatial", dtype=block.dtype, name=f"resnets_{j}")(x, temb)

    def attend(self, block: Block, j: int, x: jax.Array, context: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply transformer j within frames and over frames."""
        module = block.rematted(SpatioTemporalTransformer)
        return module(**self.transformer_fields(block, j))(x, context, positions)


class TemporalTransformers(TemporalLayers):
    """ModelScope's: convolutions after each residual block, a transformer over frames after each spatial one.

    Also one after the UNet's first convolution, whose heads are as large as those of the first level.
    """

    added = ("temp_convs_", "temp_attentions_", "transformer_in")

    def after_conv_in(self, unet: Network, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply the transformer over frames that follows the first convolution."""
        heads = unet.num_heads if isinstance(unet.num_heads, int) else unet.num_heads[0]
        fields = {"norm": "video", "embed_positions": False, "dtype": unet.dtype, "name": "transformer_in"}
        head_dim = unet.block_out_channels[0] // heads
        module = nn.remat(FrameTransformer) if unet.remat else FrameTransformer
        return module(HEADS, head_dim, unet.norm_num_groups, **fields)(x, positions)

    def resnet(self, block: Block, j: int, x: jax.Array, temb: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply residual block j and the convolutions over frames that follow it."""
        x = super().resnet(block, j, x, temb, positions)
        return block.rematted(TemporalConvs)(block.groups, block.dtype, name=f"temp_convs_{j}")(x, positions)

    def attend_frames(self, block: Block, j: int, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply the transformer over frames, in levels with transformers."""
        if not block.heads:
            return x
        head_dim = block.features // block.heads
        fields = {"norm": "video", "embed_positions": False, "dtype": block.dtype, "name": f"temp_attentions_{j}"}
        module = block.rematted(FrameTransformer)
        return module(block.heads, head_dim, block.groups, **fields)(x, positions)


@dataclasses.dataclass(frozen=True)
class MotionModules(TemporalLayers):
    """AnimateDiff's: a transformer over frames after each layer of every level, those without transformers too.

    Attributes:
      norm: of what the group norms of the motion modules take statistics, a "frame", as the authors do, in whose code
        the weights were trained, or the whole "video", as diffusers does. Where frames differ in brightness, so do the
        results.
      max_frames: the most frames of a video; the weights were trained with as many positions.
      mid_block: whether the middle block has a motion module.
      attentions: over frames, in each motion module: 2; SparseCtrl's have 1.
    """

    added: ClassVar[tuple[str, ...]] = ("motion_modules_",)
    norm: str = "frame"
    max_frames: int = 32
    mid_block: bool = True
    attentions: int = 2

    @classmethod
    def of(cls, unet: Network) -> "MotionModules":
        """Return the kind with the UNet's fields for it."""
        return cls(unet.motion_norm, unet.motion_max_frames, unet.motion_mid_block, unet.motion_attentions)

    def check(self, unet: Network, num_frames: int) -> None:
        """Raise ValueError for an unknown norm, channels that the heads do not divide, or too many frames."""
        if self.norm not in MOTION_NORMS:
            raise ValueError(f"motion_norm is {self.norm!r}; it may be {' or '.join(MOTION_NORMS)}")
        for channels in unet.block_out_channels:
            if channels % HEADS:
                raise ValueError(
                    f"motion modules have {HEADS} heads, which must divide the {channels} of block_out_channels"
                )
        if num_frames > self.max_frames:
            raise ValueError(f"a video of {num_frames} frames is longer than motion_max_frames, {self.max_frames}")

    def attend_frames(self, block: Block, j: int, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Apply motion module j."""
        head_dim = block.features // HEADS
        fields = {"norm": self.norm, "embed_positions": True, "attentions": self.attentions}
        fields |= {"dtype": block.dtype, "name": f"motion_modules_{j}"}
        module = block.rematted(FrameTransformer)
        return module(HEADS, head_dim, block.groups, **fields)(x, positions)

    def middle(self) -> TemporalLayers:
        """The middle block's: a motion module with `mid_block`, else nothing."""
        return self if self.mid_block else TemporalLayers()


KINDS: dict[str | None, type[TemporalLayers]] = {
    None: TemporalLayers,
    "make_a_video": MakeAVideo,
    "spatio_temporal": SpatioTemporal,
    "temporal_transformer": TemporalTransformers,
    "motion_module": MotionModules,
}
# What `UNet.temporal` was before there were several kinds; config.json files of such models have it.
_BEFORE_KINDS = {True: "make_a_video", False: None}


def kind_name(value: str | bool | None) -> str | None:
    """Return the name in `KINDS` for a value of `UNet.temporal`, which True and False were once.

    Raises:
      ValueError: there is no such kind.
    """
    name = _BEFORE_KINDS[value] if isinstance(value, bool) else value
    if name not in KINDS:
        raise ValueError(f"temporal is {value!r}; it may be {', '.join(map(str, KINDS))}")
    return name


def temporal_part(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a UNet's parameters, or of their shapes, that some kind adds to the layers of the 2D UNet."""
    found = {}
    for name, value in tree.items():
        if is_temporal(name):
            found[name] = value
        elif isinstance(value, Mapping) and (below := temporal_part(value)):
            found[name] = below
    return found


def is_temporal(name: str) -> bool:
    """Whether a module of this name is one that some kind adds to the layers of the 2D UNet."""
    return name.startswith(tuple(start for kind in KINDS.values() for start in kind.added))
