"""A Stable Diffusion UNet and a motion adapter as the parameters of one video UNet."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from videogen_jax.models.temporal_kinds import is_temporal
from videogen_jax.stages.pia import PIAStage
from videogen_jax.stages.reference import ReferenceStage
from videogen_jax.stages.stage import InputSizes, Params, batch_spec
from videogen_jax.stages.text_to_video import TextToVideoStage
from videogen_jax.weights.animatediff import AnimateDiffIndex, MotionAdapter
from videogen_jax.weights.folder import with_dtype
from videogen_jax.weights.naming import from_public
from videogen_jax.weights.templates import parameter_shapes

CONV_IN = "conv_in"


def build_motion_stage(index: AnimateDiffIndex, images: ReferenceStage) -> TextToVideoStage:
    """The stage of an image model's UNet with motion modules.

    Args:
      index: of the model.
      images: the stage of the image model.
    """
    adapter = index.adapter.config
    unet = {
        **images.unet,
        "temporal": "motion_module",
        "motion_norm": index.motion_norm,
        "motion_max_frames": adapter["motion_max_seq_length"],
        "motion_mid_block": adapter["use_motion_mid_block"],
    }
    kind = TextToVideoStage
    if index.adapter.reads_reference:
        kind = PIAStage
        unet["in_channels"] = adapter["conv_in_channels"]
    pixels = 2 ** (len(images.network.block_out_channels) - 1)
    return kind(unet=unet, resolution=max(index.resolution // 8, pixels), **index.scheduler.stage_fields())


def load_motion(stage: TextToVideoStage, image_params: Params, adapter: MotionAdapter, dtype: Any = None) -> Params:
    """The motion modules of an adapter, and the first convolution where it brings one.

    Args:
      stage: from `build_motion_stage`.
      image_params: of the image model's UNet; of a text-to-image model with a pooled text its shapes are read.
      adapter: the adapter.
      dtype: of the parameters; None: float32.

    Returns: a tree for `add_motion`, of host arrays.

    Raises:
      ValueError: the tensors do not fit the UNet; the message names the adapter and the first of them.
    """
    batch = batch_spec(stage.input_spec(InputSizes(resolution=2 ** (len(stage.network.block_out_channels) - 1))))
    width = stage.network.size_embedding_dim
    if width:
        added = image_params["add_embedding"]["linear_1"]["kernel"].shape[0] - 6 * width
        batch |= {"pooled": jax.ShapeDtypeStruct((1, added), jnp.float32)}
        batch |= {"sizes": jax.ShapeDtypeStruct((1, 6), jnp.float32)}
    template = parameter_shapes(stage, stage.init, batch)[stage.name]
    wanted = _motion(template)
    if adapter.config["conv_in_channels"] is not None:
        wanted[CONV_IN] = template[CONV_IN]
    try:
        wanted = wanted if dtype is None else with_dtype(wanted, jnp.dtype(dtype))
        return from_public(adapter.tensors, wanted, adapter.config["motion_max_seq_length"])
    except ValueError as error:
        raise ValueError(f"motion_adapter {adapter.path}: {error}") from error


def add_motion(image_params: Params, motion: Params) -> Params:
    """The parameters of the video UNet: those of the image model's, and the motion modules, none of them copied.

    Of PIA's first convolution the noisy latents' part, and the bias, are the image model's.

    Args:
      image_params, motion: trees, from `load_motion` the second.
    """
    merged = _merged(image_params, {name: value for name, value in motion.items() if name != CONV_IN})
    if CONV_IN in motion:
        kernel = image_params[CONV_IN]["kernel"]
        rest = motion[CONV_IN]["kernel"][:, :, kernel.shape[2] :]
        merged[CONV_IN] = {**image_params[CONV_IN], "kernel": jnp.concatenate([kernel, rest], axis=2)}
    return merged


def motion_of(params: Params) -> Params:
    """The motion modules among the parameters of a video UNet."""
    return _motion(params)


def _motion(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a tree that is below modules which a kind of temporal layers adds."""
    found = {}
    for name, value in tree.items():
        if is_temporal(name):
            found[name] = value
        elif isinstance(value, Mapping) and (below := _motion(value)):
            found[name] = below
    return found


def _merged(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, value in other.items():
        merged[name] = _merged(tree[name], value) if name in tree else value
    return merged
