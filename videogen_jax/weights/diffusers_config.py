"""Conversion between `config.json` of diffusers' and transformers' networks and the fields of our networks.

A field is either translated, or supported only with the value that it has in Stable Diffusion, or irrelevant to what
the network computes. Any other field, or a value that our network does not support, is named in an error.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from videogen_jax.models.autoencoder import AutoencoderKL, TemporalDecoder
from videogen_jax.models.text_encoder import ACTIVATIONS, CLIPTextEncoder
from videogen_jax.models.unet import UNet

UNET_CLASS = "UNet2DConditionModel"
AUTOENCODER_CLASS = "AutoencoderKL"
TEMPORAL_AUTOENCODER_CLASS = "AutoencoderKLTemporalDecoder"
NUM_SIZES = 6  # scalars of Stable Diffusion XL's size conditioning
TEXT_CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")
VISION_CLASS = "CLIPVisionModelWithProjection"

_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
_UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}

# Fields with the same name in our network, with diffusers' default.
_UNET_SAME = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
}
_UNET_TRANSLATED = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
}
_UNET_FIXED = {
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu",),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1.0,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}
_UNET_WITHOUT_EFFECT = ("sample_size", "dropout", "upcast_attention", "addition_embed_type_num_heads")

_AUTOENCODER_SAME = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
}
_AUTOENCODER_FIXED = {
    "act_fn": ("silu",),
    "latents_mean": (None,),
    "latents_std": (None,),
    "mid_block_add_attention": (True,),
}
_AUTOENCODER_SCALES = {"scaling_factor": 0.18215, "shift_factor": None}
_AUTOENCODER_WITHOUT_EFFECT = ("sample_size", "force_upcast")

_TEXT_RENAMED = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "max_position_embeddings": "max_positions",
    "hidden_act": "hidden_act",
}
_TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "eos_token_id": 49407,
    "projection_dim": 512,
}

_VISION_RENAMED = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "patch_size": "patch_size",
    "projection_dim": "projection_dim",
    "image_size": "image_size",
    "hidden_act": "hidden_act",
}
_VISION_DEFAULTS = {  # of CLIPVisionConfig, which are ViT-B/32's
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 32,
    "projection_dim": 512,
    "image_size": 224,
    "hidden_act": "quick_gelu",
}
_VISION_FIXED = {"num_channels": (3,), "layer_norm_eps": (1e-5,), "model_type": ("clip_vision_model",)}
_VISION_WITHOUT_EFFECT = (
    "architectures",
    "attention_dropout",
    "dropout",
    "dtype",
    "initializer_factor",
    "initializer_range",
    "torch_dtype",
    "transformers_version",
)
VISION_NAMES = (*_VISION_RENAMED, *_VISION_FIXED)  # fields that say what a vision encoder computes


def unet_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate the config of a `UNet2DConditionModel` to fields of `UNet`.

    Args:
      config: the content of config.json.
      where: the file, for messages.

    Raises:
      ValueError: a field or value is not supported; the message names it.
    """
    check_class(config, (UNET_CLASS,), where)
    full = {**_UNET_SAME, **_UNET_TRANSLATED, **config}
    check_fields(config, (*_UNET_SAME, *_UNET_TRANSLATED, *_UNET_WITHOUT_EFFECT), _UNET_FIXED, where)
    attention = levels_with_attention(full, _DOWN, _UP, where)
    # attention_head_dim is misnamed since diffusers' first release: it is the number of heads.
    heads = full["num_attention_heads"] or full["attention_head_dim"]
    fields = {name: to_tuple(full[name]) for name in _UNET_SAME}
    fields |= {"cross_attention": attention, "num_heads": to_tuple(heads)}
    if full["addition_embed_type"] is not None:
        if full["addition_embed_type"] != "text_time":
            kind = full["addition_embed_type"]
            raise ValueError(f"{where}: addition_embed_type is {kind!r}; supported are None and 'text_time'")
        fields["size_embedding_dim"] = full["addition_time_embed_dim"]
    return fields


def levels_with_attention(
    full: Mapping[str, Any], down: Mapping[str, bool], up: Mapping[str, bool], where: str
) -> tuple[bool, ...]:
    """Which levels of a UNet have attention.

    Args:
      full: its config, all of whose fields are there.
      down, up: names of blocks and whether they have attention.
      where: the file, for messages.

    Raises:
      ValueError: a block of another kind, or a field that must be one number for all levels.
    """
    attention = _block_kinds(full["down_block_types"], down, "down_block_types", where)
    if _block_kinds(full["up_block_types"], up, "up_block_types", where) != attention[::-1]:
        raise ValueError(f"{where}: up_block_types must mirror down_block_types, but are {full['up_block_types']}")
    for name in ("layers_per_block", "cross_attention_dim"):
        if not isinstance(full[name], int):
            raise ValueError(f"{where}: {name} is {full[name]!r}; it must be one number for all levels")
    return attention


def public_config(config: Mapping[str, Any], sample_size: int | None = None) -> dict[str, Any]:
    """Translate a part's config to that of diffusers' or transformers' network, if they have such a network.

    Args:
      config: of a stage's part, with `_class_name`.
      sample_size: side of the latents (of the images, for an autoencoder) that the network was trained on.
    """
    config = dict(config)
    kind = config.pop("_class_name")
    if kind == "ReferenceStage":
        return unet_config(config["unet"]) | {"sample_size": sample_size}
    if kind == "AutoencoderKL":
        scales = [config.pop(name) for name in _AUTOENCODER_SCALES]
        return autoencoder_config(config, *scales) | {"sample_size": sample_size}
    if kind == "CLIPTextEncoder":
        return text_encoder_config(config)
    return {"_class_name": kind, **config}


def unet_config(fields: Mapping[str, Any], pooled_dim: int | None = None) -> dict[str, Any]:
    """Translate fields of a `UNet` without temporal layers and added conditions to a `UNet2DConditionModel`'s config.

    Args:
      fields: of the `UNet`.
      pooled_dim: width of Stable Diffusion XL's pooled text embedding.

    Raises:
      ValueError: diffusers has no such network.
    """
    for name in ("temporal", "reference_attention", "added_conditions"):
        if fields.get(name):
            raise ValueError(f"a UNet with {name} has no {UNET_CLASS}")
    fields = with_defaults(UNet, fields)
    attention = tuple(fields["cross_attention"])
    config = {"_class_name": UNET_CLASS, "act_fn": "silu"}
    config |= {name: to_list(fields[name]) for name in _UNET_SAME}
    config["down_block_types"] = [name_of(_DOWN, kind) for kind in attention]
    config["up_block_types"] = [name_of(_UP, kind) for kind in reversed(attention)]
    config["attention_head_dim"] = to_list(fields["num_heads"])
    width = fields["size_embedding_dim"]
    if width is not None:
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": width}
        config["projection_class_embeddings_input_dim"] = pooled_dim + NUM_SIZES * width
    return config


def autoencoder_fields(config: Mapping[str, Any], where: str) -> tuple[dict[str, Any], float, float]:
    """Translate the config of diffusers' `AutoencoderKL`; arguments and errors as for `unet_fields`.

    Returns: fields of our `AutoencoderKL`, scaling factor and shift factor.
    """
    check_class(config, (AUTOENCODER_CLASS,), where)
    full = {**_AUTOENCODER_SAME, **_AUTOENCODER_SCALES, **config}
    blocks = ("down_block_types", "up_block_types")
    translated = (*_AUTOENCODER_SAME, *_AUTOENCODER_SCALES, *blocks, *_AUTOENCODER_WITHOUT_EFFECT)
    check_fields(config, translated, _AUTOENCODER_FIXED, where)
    for name, kind in zip(blocks, ("DownEncoderBlock2D", "UpDecoderBlock2D"), strict=True):
        _check_blocks(config, name, kind, len(full["block_out_channels"]), where)
    fields = {name: to_tuple(full[name]) for name in _AUTOENCODER_SAME}
    return fields, float(full["scaling_factor"]), float(full["shift_factor"] or 0.0)


def temporal_autoencoder_fields(config: Mapping[str, Any], where: str) -> tuple[dict[str, Any], float, float]:
    """Translate the config of Stable Video Diffusion's autoencoder; arguments and errors as for `unet_fields`.

    Returns: fields of our `AutoencoderKLTemporalDecoder`, scaling factor and shift factor, which is 0.
    """
    check_class(config, (TEMPORAL_AUTOENCODER_CLASS,), where)
    full = {**_AUTOENCODER_SAME, **_AUTOENCODER_SCALES, **config}
    known = ("in_channels", "out_channels", "latent_channels", "block_out_channels", "layers_per_block")
    check_fields(config, (*known, "down_block_types", "scaling_factor", *_AUTOENCODER_WITHOUT_EFFECT), {}, where)
    _check_blocks(config, "down_block_types", "DownEncoderBlock2D", len(full["block_out_channels"]), where)
    return {name: to_tuple(full[name]) for name in known}, float(full["scaling_factor"]), 0.0


def autoencoder_config(fields: Mapping[str, Any], scaling_factor: float, shift_factor: float) -> dict[str, Any]:
    """Translate fields of `AutoencoderKL` to the config of diffusers' class of the same name."""
    fields = with_defaults(AutoencoderKL, fields)
    channels = fields["block_out_channels"]
    return {
        "_class_name": AUTOENCODER_CLASS,
        "act_fn": "silu",
        **{name: to_list(fields[name]) for name in _AUTOENCODER_SAME},
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "scaling_factor": scaling_factor,
        "shift_factor": shift_factor,
    }


def temporal_decoder_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate the config of Stable Video Diffusion's autoencoder to fields of `TemporalDecoder`.

    Arguments and errors as for `unet_fields`.
    """
    fields, _, _ = temporal_autoencoder_fields(config, where)
    del fields["in_channels"]
    return {**fields, "mid_block_layers": fields["layers_per_block"]}


def temporal_decoder_config(fields: Mapping[str, Any], scaling_factor: float) -> dict[str, Any]:
    """Translate fields of `TemporalDecoder` to the config of `AutoencoderKLTemporalDecoder`.

    The encoder of that class has the same widths.

    Raises:
      ValueError: diffusers' class has no such decoder.
    """
    fields = with_defaults(TemporalDecoder, fields)
    if fields["use_post_quant_conv"]:
        raise ValueError(f"a video decoder with a post_quant_conv has no {TEMPORAL_AUTOENCODER_CLASS}")
    if fields["norm_num_groups"] != 32:
        raise ValueError(
            f"{TEMPORAL_AUTOENCODER_CLASS} has groups of 32, but norm_num_groups is {fields['norm_num_groups']}"
        )
    if fields["mid_block_layers"] != fields["layers_per_block"]:
        raise ValueError(
            f"{TEMPORAL_AUTOENCODER_CLASS} has layers_per_block residual blocks in its middle block, "
            f"{fields['layers_per_block']}, but this video decoder has mid_block_layers {fields['mid_block_layers']}"
        )
    names = ("out_channels", "latent_channels", "block_out_channels", "layers_per_block")
    return {
        "_class_name": TEMPORAL_AUTOENCODER_CLASS,
        "down_block_types": ["DownEncoderBlock2D"] * len(fields["block_out_channels"]),
        "scaling_factor": scaling_factor,
        **{name: to_list(fields[name]) for name in names},
    }


def text_encoder_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate the config of transformers' CLIP text models to fields of `CLIPTextEncoder`.

    Arguments and errors as for `unet_fields`.
    """
    names = config.get("architectures") or ["CLIPTextModel"]
    if not set(names) <= set(TEXT_CLASSES) or config.get("model_type", "clip_text_model") != "clip_text_model":
        raise ValueError(f"{where} describes a {', '.join(names)}; supported are {' and '.join(TEXT_CLASSES)}")
    if config.get("layer_norm_eps", 1e-5) != 1e-5:
        raise ValueError(f"{where}: layer_norm_eps is {config['layer_norm_eps']!r}; only 1e-05 is supported")
    full = {**_TEXT_DEFAULTS, **config}
    fields = {ours: full[public] for public, ours in _TEXT_RENAMED.items()}
    fields["eos_token_id"] = full["eos_token_id"]
    if "CLIPTextModelWithProjection" in names:
        fields["projection_dim"] = full["projection_dim"]
    return fields


def text_encoder_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Translate fields of `CLIPTextEncoder` to the config of transformers' model, with a projection if ours has one."""
    fields = with_defaults(CLIPTextEncoder, fields)
    projection = fields["projection_dim"]
    config = {
        "architectures": [TEXT_CLASSES[1] if projection else TEXT_CLASSES[0]],
        "model_type": "clip_text_model",
        "layer_norm_eps": 1e-5,
        "bos_token_id": None,
        "eos_token_id": fields["eos_token_id"],
        **{public: fields[ours] for public, ours in _TEXT_RENAMED.items()},
    }
    return config | ({"projection_dim": projection} if projection else {})


def vision_encoder_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate the config of transformers' `CLIPVisionModelWithProjection` to fields of `CLIPVisionEncoder`.

    Arguments and errors as for `unet_fields`.
    """
    names = config.get("architectures") or [VISION_CLASS]
    if set(names) != {VISION_CLASS}:
        raise ValueError(f"{where} describes a {', '.join(names)}, but a {VISION_CLASS} is needed")
    check_fields(config, (*_VISION_RENAMED, *_VISION_WITHOUT_EFFECT), _VISION_FIXED, where)
    full = {**_VISION_DEFAULTS, **config}
    for name in ("image_size", "patch_size"):
        if not isinstance(full[name], int):
            raise ValueError(f"{where}: {name} is {full[name]!r}; it must be one number, the side of a square")
    if full["hidden_act"] not in ACTIVATIONS:
        raise ValueError(f"{where}: hidden_act is {full['hidden_act']!r}; supported are {', '.join(ACTIVATIONS)}")
    return {ours: full[public] for public, ours in _VISION_RENAMED.items()}


def with_defaults(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a network, those that are left out at their defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
    return {**defaults, **fields}


def check_class(config: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    """Raise ValueError unless the config is of one of these classes."""
    name = config.get("_class_name")
    if name not in names:
        raise ValueError(f"{where} describes a {name}, but a {' or '.join(names)} is needed")


def check_fields(
    config: Mapping[str, Any], known: Iterable[str], fixed: Mapping[str, tuple[Any, ...]], where: str
) -> None:
    """Raise ValueError for a field that is not known, or that has not one of its fixed values."""
    for name, value in config.items():
        if name.startswith("_") or name in known:
            continue
        if name not in fixed:
            raise ValueError(f"{where}: the field {name} ({value!r}) is not supported")
        if value not in fixed[name]:
            raise ValueError(f"{where}: {name} is {value!r}; only {' or '.join(map(repr, fixed[name]))} is supported")


def _block_kinds(names: Iterable[str], kinds: Mapping[str, bool], field: str, where: str) -> tuple[bool, ...]:
    for name in names:
        if name not in kinds:
            raise ValueError(f"{where}: {field} has a {name}; supported are {', '.join(kinds)}")
    return tuple(kinds[name] for name in names)


def _check_blocks(config: Mapping[str, Any], field: str, kind: str, levels: int, where: str) -> None:
    if field in config and tuple(config[field]) != (kind,) * levels:
        raise ValueError(f"{where}: {field} must be {levels} times {kind}, but are {config[field]}")


def name_of(kinds: Mapping[str, bool], kind: bool) -> str:
    """The name of the block that has attention, or has none."""
    return next(name for name, value in kinds.items() if value == kind)


def to_tuple(value: Any) -> Any:
    """A list as a tuple, anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def to_list(value: Any) -> Any:
    """A tuple as a list, anything else as it is."""
    return list(value) if isinstance(value, tuple) else value
