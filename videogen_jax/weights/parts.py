"""The trained parts of a model folder as the networks that the stages use.

The autoencoder, the text encoders and the text-to-image UNet are in the layout of diffusers and transformers, so Stable
Diffusion's folders are read by the same functions as a model that was trained here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.models.autoencoder import AutoencoderKL, AutoencoderKLTemporalDecoder, TemporalDecoder
from videogen_jax.models.text_encoder import CLIPTextEncoder
from videogen_jax.runtime.files import load_json, plain
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.reference import ReferenceStage
from videogen_jax.stages.stage import InputSizes, Params, Stage, batch_spec, build_network
from videogen_jax.weights.diffusers_config import (
    NUM_SIZES,
    TEMPORAL_AUTOENCODER_CLASS,
    autoencoder_fields,
    public_config,
    temporal_autoencoder_fields,
    temporal_decoder_config,
    temporal_decoder_fields,
    text_encoder_fields,
    unet_fields,
)
from videogen_jax.weights.folder import CONFIG_NAME, INDEX_NAME, load_config, load_part, save_part
from videogen_jax.weights.naming import position_tables
from videogen_jax.weights.scheduler_config import load_scheduler
from videogen_jax.weights.templates import parameter_shapes
from videogen_jax.weights.tokenizer import MAX_LENGTH, load_tokenizer
from videogen_jax.weights.video_config import public_video_config

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_PENULTIMATE = ("I2VGenXLPipeline",)  # models whose UNet attends to `TextFeatures.before_last`


def load_autoencoder_config(model_folder: str | Path, dtype: Any = None) -> FrozenAutoencoder:
    """The autoencoder in `model_folder/vae` without its parameters.

    Args:
      model_folder: with diffusers' `AutoencoderKL`, or Stable Video Diffusion's `AutoencoderKLTemporalDecoder`. The
        latter has no decoder of images, so `decode` gives its video decoder one frame at a time.
      dtype: name of the compute type; None: float32. Stable Diffusion's encoders overflow in float16.

    Raises:
      ValueError: missing, or a field does not fit.
    """
    folder = Path(model_folder) / "vae"
    where = str(folder / CONFIG_NAME)
    config = load_config(folder)
    kind, translate = AutoencoderKL, autoencoder_fields
    if config.get("_class_name") == TEMPORAL_AUTOENCODER_CLASS:
        kind, translate = AutoencoderKLTemporalDecoder, temporal_autoencoder_fields
    fields, scaling_factor, shift_factor = translate(config, where)
    network = build_network(kind, fields | ({} if dtype is None else {"dtype": dtype}), where)
    return FrozenAutoencoder(network, scaling_factor, shift_factor)


def load_autoencoder(model_folder: str | Path, dtype: Any = None) -> tuple[FrozenAutoencoder, Params]:
    """The autoencoder in `model_folder/vae` and its parameters (float32).

    Of Stable Video Diffusion's folder the parameters are those of the encoder, `quant_conv` and the video decoder; an
    image decoder is missing there. Arguments as of `load_autoencoder_config`.

    Raises:
      ValueError: missing or not fitting.
    """
    folder = Path(model_folder) / "vae"
    autoencoder = load_autoencoder_config(model_folder, dtype)
    network = autoencoder.network
    size = 2 * network.downsampling
    images = jax.ShapeDtypeStruct((1, size, size, network.in_channels), jnp.float32)
    template = parameter_shapes(network, network.init, images, jax.random.key(0))["params"]
    return autoencoder, load_part(folder, template)


class TextPart(NamedTuple):
    """Tokenizer, text encoder and its parameters.

    Attributes:
      tokenizer, network, params: of the encoder.
      penultimate: cross-attention reads the states before the last layer, which are normalised as the last ones are.
    """

    tokenizer: "CLIPTokenizer"
    network: CLIPTextEncoder
    params: Params
    penultimate: bool = False

    def encode(self, params: Params, tokens: jax.Array) -> jax.Array:
        """tokens int32 `(B, L)` -> `(B, L, D)` float32, what cross-attention reads."""
        features = self.network.apply({"params": params}, tokens)
        return (features.before_last if self.penultimate else features.last_hidden_state).astype(jnp.float32)


def load_model_tokenizer(model_folder: str | Path, number: int = 1) -> "CLIPTokenizer":
    """The tokenizer of a text encoder, with the length that this takes where the tokenizer's folder gives none.

    A model whose text encoder is still to be trained has a tokenizer alone. Arguments and errors as of
    `load_text_encoder`.
    """
    ending = "" if number == 1 else f"_{number}"
    folder, length = Path(model_folder) / f"text_encoder{ending}", MAX_LENGTH
    if folder.is_dir():
        length = text_encoder_fields(load_config(folder), str(folder / CONFIG_NAME))["max_positions"]
    return load_tokenizer(Path(model_folder) / f"tokenizer{ending}", length)


def load_text_encoder(model_folder: str | Path, dtype: Any = None, number: int = 1) -> TextPart:
    """The tokenizer and the text encoder of a model folder.

    Args:
      dtype: name of the compute type of the network and of the parameters; None: float32.
      number: 2 for Stable Diffusion XL's second, in `text_encoder_2` and `tokenizer_2`.

    Raises:
      ValueError: missing or not fitting.
    """
    ending = "" if number == 1 else f"_{number}"
    folder = Path(model_folder) / f"text_encoder{ending}"
    where = str(folder / CONFIG_NAME)
    fields = text_encoder_fields(load_config(folder), where)
    network = build_network(CLIPTextEncoder, fields | ({} if dtype is None else {"dtype": dtype}), where)
    tokenizer = load_model_tokenizer(model_folder, number)
    tokens = jax.ShapeDtypeStruct((1, tokenizer.model_max_length), jnp.int32)
    template = parameter_shapes(network, network.init, tokens)["params"]
    params = load_part(folder, template, dtype)
    return TextPart(tokenizer, network, params, _class_of(model_folder) in _PENULTIMATE)


def _class_of(model_folder: str | Path) -> str | None:
    """The class of pipeline of which a folder is, or None."""
    path = Path(model_folder) / INDEX_NAME
    return load_json(path).get("_class_name") if path.is_file() else None


class ReferencePart(NamedTuple):
    """A text-to-image UNet with the sampling that its folder asks for.

    Attributes:
      stage: the UNet with its noise schedule.
      params: the UNet's parameters.
      sampler: the scheduler's, one of `samplers.SAMPLERS`.
      sample_size: side of the latents that it was trained for, or None if the config does not say.
    """

    stage: ReferenceStage
    params: Params
    sampler: str
    sample_size: int | None


def load_reference(model_folder: str | Path, dtype: Any = None) -> ReferencePart:
    """The UNet and the scheduler of a text-to-image model in diffusers' layout.

    Args:
      dtype: name of the compute type of the network and of the parameters; None: float32.

    Raises:
      ValueError: missing, of another kind, with a field that is not supported, or not fitting its weights.
    """
    folder = Path(model_folder) / "unet"
    where = str(folder / CONFIG_NAME)
    config = load_config(folder)
    fields = unet_fields(config, where)
    scheduler = load_scheduler(model_folder)
    stage = ReferenceStage(
        unet=fields | ({} if dtype is None else {"dtype": dtype}),
        **scheduler.stage_fields(),
    )
    side = 2 ** (len(fields["block_out_channels"]) - 1)
    batch = batch_spec(named(where, stage.input_spec, InputSizes(resolution=side)))
    if fields.get("size_embedding_dim"):
        total = config.get("projection_class_embeddings_input_dim")
        if not isinstance(total, int) or total <= NUM_SIZES * fields["size_embedding_dim"]:
            raise ValueError(f"{where}: projection_class_embeddings_input_dim is {total!r}, too small for the sizes")
        batch["pooled"] = floats(1, total - NUM_SIZES * fields["size_embedding_dim"])
        batch["sizes"] = floats(1, NUM_SIZES)
    template = named(where, parameter_shapes, stage, stage.init, batch)["unet"]
    return ReferencePart(stage, load_part(folder, template, dtype), scheduler.sampler, config.get("sample_size"))


def load_stage(
    folder: str | Path, kind: type[Stage], latent_channels: int, context_size: int, dtype: Any = None
) -> tuple[Any, Params]:
    """Read a stage of one part and its parameters, as `export` wrote them.

    A `DecoderStage` is also read from the `AutoencoderKLTemporalDecoder` of Stable Video Diffusion.

    Args:
      folder: the part, with config.json and weights.
      kind: the class of the stage.
      latent_channels: channels of the model's latents.
      context_size: width of the model's text states.
      dtype: name of the compute type of its networks and of the parameters; None: as the config says, and float32.

    Raises:
      ValueError: the part is missing, is of another kind, has an unknown field, does not fit the model, or its weights
        do not fit its fields.
    """
    folder = Path(folder)
    config, where = load_config(folder), str(folder / CONFIG_NAME)
    name = config.pop("_class_name", None)
    if kind is DecoderStage and name == TEMPORAL_AUTOENCODER_CLASS:
        config = {"decoder": temporal_decoder_fields({"_class_name": name, **config}, where)}
        name = kind.__name__
    if name != kind.__name__:
        raise ValueError(f"{where} describes a {name}, but a {kind.__name__} is needed")
    settings = {k: v for k, v in config.items() if not k.startswith("_")} | dict(kind.inference_fields)
    if dtype is not None:
        networks = {k: v for k, v in settings.items() if isinstance(v, Mapping) and k != "schedule"}
        settings |= {k: {**v, "dtype": dtype} for k, v in networks.items()}
    stage = build_network(kind, settings, where)
    inputs = named(where, stage.input_spec, InputSizes(latent_channels=latent_channels))
    for array, channels in (("latents", latent_channels), ("context", context_size)):
        if array in inputs and inputs[array].shape[-1] != channels:
            raise ValueError(
                f"{where}: the stage reads {array} with {inputs[array].shape[-1]} channels, but the model's have "
                f"{channels}"
            )
    params = named(where, parameter_shapes, stage, stage.init, batch_spec(inputs))
    (part,) = stage.parts()
    return stage, load_part(folder, params[part], dtype, part_prefix(folder))


def save_public_part(
    folder: str | Path,
    config: Mapping[str, Any],
    params: Params,
    sample_size: int | None = None,
    dtype: str = "float16",
) -> None:
    """Write a part in the layout of diffusers or transformers where they have such a network, else in our own.

    Args:
      folder: of the part.
      config: as `Stage.parts` gives it.
      params: its parameters.
      sample_size: see `public_config`.
      dtype: of the stored weights.
    """
    public = public_video_config(config)
    public = plain(public_config(config, sample_size) if public is None else public)
    in_transformers = "architectures" in public
    weights_name = "model.safetensors" if in_transformers else "diffusion_pytorch_model.safetensors"
    tables = position_tables(params, public["motion_max_seq_length"]) if "motion_max_seq_length" in public else {}
    save_part(folder, public, params, weights_name=weights_name, dtype=dtype, buffers=tables)


def part_prefix(folder: str | Path) -> str:
    """What the names of a stage's tensors in this part begin with: Stable Video Diffusion's holds an encoder too."""
    return "decoder." if load_config(folder).get("_class_name") == TEMPORAL_AUTOENCODER_CLASS else ""


def temporal_autoencoder_part(
    model_folder: str | Path, decoder: Mapping[str, Any], params: Params
) -> tuple[dict[str, Any], Params]:
    """Config and parameters of diffusers' `AutoencoderKLTemporalDecoder`: the model's encoder and a video decoder.

    Args:
      model_folder: whose autoencoder makes the latents that the video decoder takes.
      decoder, params: fields of the `TemporalDecoder`, and its parameters.

    Raises:
      ValueError: diffusers' class has no such pair.
    """
    autoencoder, vae = load_autoencoder(model_folder)
    config = temporal_decoder_config(decoder, autoencoder.scaling_factor)
    for name in ("block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups"):
        theirs = getattr(autoencoder.network, name)
        ours = getattr(build_network(TemporalDecoder, decoder, "decoder"), name)
        if ours != theirs:
            raise ValueError(f"the video decoder's {name} is {ours}, the encoder's {theirs}: they must be one")
    channels = 2 * autoencoder.network.latent_channels
    identity = {"kernel": np.eye(channels, dtype=np.float32)[None, None], "bias": np.zeros(channels, np.float32)}
    return config, {"encoder": vae["encoder"], "quant_conv": vae.get("quant_conv", identity), "decoder": params}


def named(where: str, function: Callable, *args: Any) -> Any:
    """`function(*args)`, whose errors, of fields that do not fit each other, begin with the config that holds them."""
    try:
        return function(*args)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
