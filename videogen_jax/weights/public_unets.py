"""The UNets of public video models as the cascade's: their fields, and their parameters where the cascade wants them.

The cascade joins noisy latents, the reference's latents of unit variance, and a mask on the channel axis. Stable Video
Diffusion has the image's latents in that place as its autoencoder gives them, not scaled; PIA has the mask before them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from videogen_jax.stages.stage import Params
from videogen_jax.weights.animatediff import MotionAdapter
from videogen_jax.weights.diffusers_config import unet_fields
from videogen_jax.weights.folder import CONFIG_NAME, load_config, load_part
from videogen_jax.weights.model_index import UNET
from videogen_jax.weights.motion_adapter import CONV_IN, motion_fields, motion_unet
from videogen_jax.weights.parts import load_autoencoder_config
from videogen_jax.weights.video_config import (
    I2VGEN_CLASS,
    SPATIO_TEMPORAL_CLASS,
    UNET_3D_CLASS,
    i2vgen_fields,
    spatio_temporal_fields,
    temporal_transformer_fields,
)

_FIELDS: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    SPATIO_TEMPORAL_CLASS: spatio_temporal_fields,
    UNET_3D_CLASS: temporal_transformer_fields,
    I2VGEN_CLASS: i2vgen_fields,
}
# Their layers that have no place in the cascade's UNet, which is conditioned otherwise: the embeddings of numbers, and
# I2VGen-XL's layers for the image.
_LEFT_OUT = {
    SPATIO_TEMPORAL_CLASS: ("add_embedding.",),
    UNET_3D_CLASS: (),
    I2VGEN_CLASS: ("fps_embedding.", "context_embedding.", "image_latents_"),
}
_OF_THE_STAGE = ("in_channels", "out_channels", "added_numbers_dim")  # fields that the stage has of its own


def public_unet_fields(folder: Path, motion_adapter: str = "") -> dict[str, Any]:
    """The fields of a `UNet` that a public video model has; empty for a folder of another kind.

    Args:
      folder: of the model.
      motion_adapter: as `MotionAdapter.find` takes it, for a folder of Stable Diffusion; "" for none.

    Raises:
      ValueError: a field that is not supported.
    """
    path = folder / UNET
    if not (path / CONFIG_NAME).is_file():
        return {}
    config, where = load_config(path), str(path / CONFIG_NAME)
    kind = config.get("_class_name")
    if kind in _FIELDS:
        fields = _FIELDS[kind](config, where)
    elif motion_adapter:
        fields = {**unet_fields(config, where), **motion_fields(MotionAdapter.find(motion_adapter))}
    else:
        return {}
    return {name: value for name, value in fields.items() if name not in _OF_THE_STAGE}


def load_video_unet(folder: Path, motion_adapter: str, template: Params, channels: int) -> Params | None:
    """The parameters that a stage of the cascade starts from.

    Args:
      folder, motion_adapter: as of `public_unet_fields`.
      template: fresh parameters of the stage's UNet, whose first convolution takes noisy latents, the reference's
        latents and a mask, `2 * channels + 1`, and maybe more.
      channels: of the latents.

    Returns: parameters in the shapes of `template`; what the public UNet lacks as it is there. Channels of the first
    convolution that it lacks begin at zero. None: the folder has no video UNet.

    Raises:
      ValueError: its tensors do not fit.
    """
    path = folder / UNET
    kind = load_config(path).get("_class_name") if (path / CONFIG_NAME).is_file() else None
    if kind in _FIELDS:
        takes = load_config(path).get("in_channels", 4) if kind != I2VGEN_CLASS else 2 * channels
        wanted = _public_part(template, takes)
        params = load_part(path, wanted, left_out=_LEFT_OUT[kind])
    elif motion_adapter:
        adapter = MotionAdapter.find(motion_adapter)
        takes = adapter.config["conv_in_channels"] or channels
        params = motion_unet(folder, motion_adapter, _public_part(template, takes), channels)
    else:
        return None
    kernel = np.zeros(template[CONV_IN]["kernel"].shape, np.float32)
    public = np.asarray(params[CONV_IN]["kernel"], np.float32)
    kernel[:, :, :channels] = public[:, :, :channels]
    if kind == SPATIO_TEMPORAL_CLASS:
        scale = load_autoencoder_config(folder).scaling_factor
        kernel[:, :, channels : 2 * channels] = public[:, :, channels:] / scale
    elif takes == 2 * channels + 1:  # PIA's: noisy latents, mask, reference
        kernel[:, :, channels : 2 * channels] = public[:, :, channels + 1 :]
        kernel[:, :, 2 * channels : 2 * channels + 1] = public[:, :, channels : channels + 1]
    params[CONV_IN] = {**params[CONV_IN], "kernel": kernel}
    return _filled(template, params)


def _public_part(template: Params, in_channels: int) -> dict[str, Any]:
    """The shapes of a public UNet inside that of a stage: without added conditions and reference attention."""

    def own(tree: Mapping[str, Any], top: bool = True) -> dict[str, Any]:
        kept = {}
        for name, value in tree.items():
            added = name.startswith("reference_") or (top and name.endswith("_embedding") and name != "time_embedding")
            if not added:
                kept[name] = own(value, False) if isinstance(value, Mapping) else value
        return kept

    tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), own(template))
    kernel = tree[CONV_IN]["kernel"]
    shape = (*kernel.shape[:2], in_channels, kernel.shape[3])
    return {**tree, CONV_IN: {**tree[CONV_IN], "kernel": jax.ShapeDtypeStruct(shape, kernel.dtype)}}


def _filled(template: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The template with the values of `params` where it has them."""
    return {
        name: (_filled(value, params.get(name, {})) if isinstance(value, Mapping) else params.get(name, value))
        for name, value in template.items()
    }
