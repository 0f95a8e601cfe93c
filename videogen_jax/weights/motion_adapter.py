"""A Stable Diffusion UNet and a motion adapter as the parameters of one video UNet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.models.temporal_kinds import temporal_part
from videogen_jax.models.unet import image_part
from videogen_jax.stages.pia import PIAStage
from videogen_jax.stages.reference import ReferenceStage
from videogen_jax.stages.sparse_control import SparseControlStage
from videogen_jax.stages.stage import InputSizes, Params, batch_spec
from videogen_jax.stages.text_to_video import TextToVideoStage
from videogen_jax.weights.animatediff import AnimateDiffIndex, MotionAdapter, SparseControlIndex
from videogen_jax.weights.folder import CONFIG_NAME, load_config, load_part, with_dtype
from videogen_jax.weights.model_index import UNET
from videogen_jax.weights.naming import from_public
from videogen_jax.weights.templates import parameter_shapes
from videogen_jax.weights.video_config import sparse_control_fields

CONV_IN = "conv_in"


def motion_fields(adapter: MotionAdapter) -> dict[str, Any]:
    """The fields of a `UNet` that an adapter gives to an image model's."""
    fields = {
        "temporal": "motion_module",
        "motion_max_frames": adapter.config["motion_max_seq_length"],
        "motion_mid_block": adapter.config["use_motion_mid_block"],
    }
    return fields | ({"in_channels": adapter.config["conv_in_channels"]} if adapter.reads_reference else {})


def motion_unet(folder: Path, motion_adapter: str, template: Params, image_channels: int) -> Params:
    """The parameters of an image model's UNet with motion modules, host arrays.

    Args:
      folder: of the image model.
      motion_adapter: as `MotionAdapter.find` takes it; "": the modules are those of `template`.
      template: parameters of the UNet with motion modules.
      image_channels: of the image model's latents.

    Raises:
      ValueError: the tensors do not fit the UNet.
    """
    path = Path(folder) / UNET
    images = load_part(path, image_part(template, image_channels))
    if not motion_adapter:
        kernel = np.zeros(template[CONV_IN]["kernel"].shape, np.float32)  # more channels begin without effect
        motion = {**temporal_part(template), CONV_IN: {"kernel": kernel}}
        return jax.tree.map(np.asarray, add_motion(images, motion))
    adapter = MotionAdapter.find(motion_adapter)
    motion = _read_motion(adapter, template)
    return jax.tree.map(np.asarray, add_motion(images, motion))


def build_motion_stage(index: AnimateDiffIndex, images: ReferenceStage) -> TextToVideoStage:
    """The stage of an image model's UNet with motion modules.

    Args:
      index: of the model.
      images: the stage of the image model.
    """
    unet = {**images.unet, **motion_fields(index.adapter), "motion_norm": index.motion_norm}
    kind, own = PIAStage if index.adapter.reads_reference else TextToVideoStage, {}
    if isinstance(index, SparseControlIndex):
        where = str(index.control / CONFIG_NAME)
        kind, own = SparseControlStage, {"control": sparse_control_fields(load_config(index.control), where)}
        own["control"] |= {"motion_norm": index.motion_norm, "dtype": unet.get("dtype", "float32")}
        if own["control"]["cross_attention_dim"] != unet["cross_attention_dim"]:
            raise ValueError(f"{where}: cross_attention_dim is not that of the model's UNet: it is for another one")
    pixels = 2 ** (len(images.network.block_out_channels) - 1)
    resolution = max(index.resolution // 8, pixels)
    return kind(unet=unet, resolution=resolution, **index.scheduler.stage_fields(), **own)


def load_sparse_control(stage: SparseControlStage, folder: Path, dtype: Any = None) -> Params:
    """The parameters of SparseCtrl's network, host arrays.

    Raises:
      ValueError: missing, or not fitting its config.
    """
    network = stage.control_network
    side = 2 ** (len(network.block_out_channels) - 1)
    shapes = ((1,), (1, 1, network.cross_attention_dim), (1, 2, side, side, network.in_channels), (2,))
    inputs = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    template = parameter_shapes(network, network.init, *inputs)["params"]
    return load_part(folder, template, dtype)


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
    return _read_motion(adapter, parameter_shapes(stage, stage.init, batch)[stage.name], dtype)


def _read_motion(adapter: MotionAdapter, template: Params, dtype: Any = None) -> Params:
    """The adapter's parameters that have a place in `template`, that of a UNet with motion modules."""
    wanted = temporal_part(template)
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


def _merged(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, value in other.items():
        merged[name] = _merged(tree[name], value) if name in tree else value
    return merged
