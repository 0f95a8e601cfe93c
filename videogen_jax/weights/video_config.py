"""Conversion of the `config.json` of diffusers' video UNets to fields of our networks; see `diffusers_config`."""

from collections.abc import Mapping
from typing import Any

from videogen_jax.models.unet import NUM_ADDED_NUMBERS, UNet
from videogen_jax.weights.diffusers_config import (
    check_class,
    check_fields,
    levels_with_attention,
    name_of,
    to_list,
    to_tuple,
    with_defaults,
)

SPATIO_TEMPORAL_CLASS = "UNetSpatioTemporalConditionModel"  # Stable Video Diffusion
UNET_3D_CLASS = "UNet3DConditionModel"  # ModelScope, ZeroScope
I2VGEN_CLASS = "I2VGenXLUNet"
MOTION_ADAPTER_CLASS = "MotionAdapter"
SPARSE_CONTROL_CLASS = "SparseControlNetModel"

# Fields with the same name in our network, with diffusers' default.
_SPATIO_TEMPORAL_SAME = {
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "transformer_layers_per_block": 1,
}
_SPATIO_TEMPORAL_TRANSLATED = {
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * 3 + ("DownBlockSpatioTemporal",),
    "up_block_types": ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 3,
    "num_attention_heads": (5, 10, 20, 20),
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
}
_SPATIO_TEMPORAL_WITHOUT_EFFECT = ("sample_size", "num_frames")
_SPATIO_TEMPORAL_DOWN = {"CrossAttnDownBlockSpatioTemporal": True, "DownBlockSpatioTemporal": False}
_SPATIO_TEMPORAL_UP = {"CrossAttnUpBlockSpatioTemporal": True, "UpBlockSpatioTemporal": False}

_CONTROL_SAME = {
    "in_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 768,
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
}
_CONTROL_TRANSLATED = {
    "down_block_types": ("CrossAttnDownBlockMotion",) * 3 + ("DownBlockMotion",),
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "motion_max_seq_length": 32,
}
_CONTROL_FIXED = {
    "conditioning_channels": (4,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "only_cross_attention": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu",),
    "transformer_layers_per_mid_block": (None, 1),
    "temporal_transformer_layers_per_block": (1,),
    "resnet_time_scale_shift": ("default",),
    "global_pool_conditions": (False,),
    "controlnet_conditioning_channel_order": ("rgb",),
    "motion_num_attention_heads": (8,),
    "concat_conditioning_mask": (True,),
    "use_simplified_condition_embedding": (True,),
}
_CONTROL_WITHOUT_EFFECT = ("upcast_attention", "conditioning_embedding_out_channels")
_MOTION_DOWN = {"CrossAttnDownBlockMotion": True, "DownBlockMotion": False}

_3D_SAME = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "cross_attention_dim": 1024,
}
_3D_TRANSLATED = {
    "down_block_types": ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
    "up_block_types": ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
    "attention_head_dim": 64,
}
_3D_FIXED = {
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu",),
    "norm_eps": (1e-5,),
    "time_cond_proj_dim": (None,),
}
_3D_WITHOUT_EFFECT = ("sample_size", "num_attention_heads")
_3D_DOWN = {"CrossAttnDownBlock3D": True, "DownBlock3D": False}
_3D_UP = {"CrossAttnUpBlock3D": True, "UpBlock3D": False}


def spatio_temporal_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate the config of Stable Video Diffusion's UNet to fields of `UNet`.

    Args:
      config: the content of config.json.
      where: the file, for messages.

    Raises:
      ValueError: a field or value is not supported; the message names it.
    """
    check_class(config, (SPATIO_TEMPORAL_CLASS,), where)
    full = {**_SPATIO_TEMPORAL_SAME, **_SPATIO_TEMPORAL_TRANSLATED, **config}
    known = (*_SPATIO_TEMPORAL_SAME, *_SPATIO_TEMPORAL_TRANSLATED, *_SPATIO_TEMPORAL_WITHOUT_EFFECT)
    check_fields(config, known, {}, where)
    attention = levels_with_attention(full, _SPATIO_TEMPORAL_DOWN, _SPATIO_TEMPORAL_UP, where)
    width = full["addition_time_embed_dim"]
    if full["projection_class_embeddings_input_dim"] != NUM_ADDED_NUMBERS * width:
        raise ValueError(
            f"{where}: projection_class_embeddings_input_dim is {full['projection_class_embeddings_input_dim']!r}, but "
            f"{NUM_ADDED_NUMBERS} numbers of addition_time_embed_dim {width} take {NUM_ADDED_NUMBERS * width}"
        )
    fields = {name: to_tuple(full[name]) for name in _SPATIO_TEMPORAL_SAME}
    return fields | {
        "cross_attention": attention,
        "num_heads": to_tuple(full["num_attention_heads"]),
        "added_numbers_dim": width,
        "use_linear_projection": True,
        # As diffusers builds them; the authors' own code has 1e-5 everywhere.
        "down_norm_eps": tuple(1e-6 if has_attention else 1e-5 for has_attention in attention),
        "up_norm_eps": 1e-6,
        "temporal": "spatio_temporal",
    }


def sparse_control_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate the config of SparseCtrl's network to fields of `SparseControl`.

    Arguments and errors as of `spatio_temporal_fields`.
    """
    check_class(config, (SPARSE_CONTROL_CLASS,), where)
    full = {**_CONTROL_SAME, **_CONTROL_TRANSLATED, **config}
    check_fields(config, (*_CONTROL_SAME, *_CONTROL_TRANSLATED, *_CONTROL_WITHOUT_EFFECT), _CONTROL_FIXED, where)
    types = {"down_block_types": full["down_block_types"], "up_block_types": full["down_block_types"][::-1]}
    fields = {name: to_tuple(full[name]) for name in _CONTROL_SAME}
    return fields | {
        "cross_attention": levels_with_attention({**full, **types}, _MOTION_DOWN, _MOTION_DOWN, where),
        "num_heads": to_tuple(full["num_attention_heads"] or full["attention_head_dim"]),
        "motion_max_frames": full["motion_max_seq_length"],
    }


def temporal_transformer_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate the config of ModelScope's and ZeroScope's UNet to fields of `UNet`.

    Arguments and errors as of `spatio_temporal_fields`.
    """
    check_class(config, (UNET_3D_CLASS,), where)
    return _three_d_fields(config, where)


def i2vgen_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate the config of I2VGen-XL's UNet to fields of `I2VGenXLUNet`.

    Arguments and errors as of `spatio_temporal_fields`.
    """
    check_class(config, (I2VGEN_CLASS,), where)
    fields = _three_d_fields(config, where)
    if fields["in_channels"] != fields["out_channels"]:
        raise ValueError(f"{where}: in_channels and out_channels must be the same, those of the latents")
    return fields | {"in_channels": 2 * fields["out_channels"]}  # the image's latents are joined to the noisy ones


def _three_d_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    full = {**_3D_SAME, **_3D_TRANSLATED, **config}
    check_fields(config, (*_3D_SAME, *_3D_TRANSLATED, *_3D_WITHOUT_EFFECT), _3D_FIXED, where)
    attention = levels_with_attention(full, _3D_DOWN, _3D_UP, where)
    fields = {name: to_tuple(full[name]) for name in _3D_SAME}
    widths, size = fields["block_out_channels"], full["attention_head_dim"]
    sizes = to_tuple(size) if isinstance(size, (list, tuple)) else (size,) * len(widths)
    if len(sizes) != len(widths) or any(
        not isinstance(size, int) or size < 1 or width % size for width, size in zip(widths, sizes, strict=True)
    ):
        raise ValueError(f"{where}: attention_head_dim is {size!r}, but must divide block_out_channels {widths}")
    return fields | {
        "cross_attention": attention,
        "num_heads": tuple(width // size for width, size in zip(widths, sizes, strict=True)),
        "use_linear_projection": True,
        "temporal": "temporal_transformer",
    }


# Back to diffusers' configs: of the parts of stages that are trained here.


def public_video_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Translate the config of a video stage's part to that of diffusers' network; None: it is another kind of part.

    Args:
      config: as `Stage.parts` gives it.
    """
    convert = _PUBLIC.get(config["_class_name"])
    return None if convert is None else convert(with_defaults(UNet, config["unet"]))


def _spatio_temporal_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    width = fields["added_numbers_dim"]
    return {
        "_class_name": SPATIO_TEMPORAL_CLASS,
        **{name: to_list(fields[name]) for name in _SPATIO_TEMPORAL_SAME},
        **_block_types(fields, _SPATIO_TEMPORAL_DOWN, _SPATIO_TEMPORAL_UP),
        "num_attention_heads": to_list(fields["num_heads"]),
        "addition_time_embed_dim": width,
        "projection_class_embeddings_input_dim": NUM_ADDED_NUMBERS * width,
    }


def _three_d_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    widths, heads = fields["block_out_channels"], fields["num_heads"]
    heads = (heads,) * len(widths) if isinstance(heads, int) else heads
    sizes = [width // number for width, number in zip(widths, heads, strict=True)]
    return {
        "_class_name": UNET_3D_CLASS,
        **{name: to_list(fields[name]) for name in _3D_SAME},
        **_block_types(fields, _3D_DOWN, _3D_UP),
        "attention_head_dim": sizes[0] if len(set(sizes)) == 1 else sizes,
        "sample_size": 32,
    }


def _i2vgen_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    return _three_d_config(fields) | {"_class_name": I2VGEN_CLASS, "in_channels": fields["out_channels"]}


def _motion_adapter_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    joined = fields["in_channels"] != fields["out_channels"]
    return {
        "_class_name": MOTION_ADAPTER_CLASS,
        "block_out_channels": to_list(fields["block_out_channels"]),
        "motion_layers_per_block": fields["layers_per_block"],
        "motion_max_seq_length": fields["motion_max_frames"],
        "motion_norm_num_groups": fields["norm_num_groups"],
        "use_motion_mid_block": fields["motion_mid_block"],
        "conv_in_channels": fields["in_channels"] if joined else None,
    }


def _block_types(fields: Mapping[str, Any], down: Mapping[str, bool], up: Mapping[str, bool]) -> dict[str, list[str]]:
    attention = tuple(fields["cross_attention"])
    return {
        "down_block_types": [name_of(down, kind) for kind in attention],
        "up_block_types": [name_of(up, kind) for kind in reversed(attention)],
    }


_PUBLIC = {
    "ImageToVideoStage": _spatio_temporal_config,
    "TextToVideoStage": _three_d_config,
    "I2VGenXLStage": _i2vgen_config,
    MOTION_ADAPTER_CLASS: _motion_adapter_config,
}
