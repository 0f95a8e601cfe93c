"""The trained parts of a model folder as the networks that the stages use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from transformers import CLIPTokenizer

from videogen_jax.data.vocabulary import load_tokenizer
from videogen_jax.models.text_encoder import CLIPTextEncoder
from videogen_jax.stages.autoencoder import FrozenAutoencoder
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.reference import ReferenceStage
from videogen_jax.stages.stage import Params, Stage, build_network
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.weights.folder import load_config, load_part

SAMPLED_STAGES: dict[str, type[Stage]] = {
    kind.__name__: kind for kind in (ReferenceStage, CascadeStage, TemporalStage, DecoderStage)
}
# Settings of training that a stage is read without.
_READ_WITH = {"DecoderStage": {"adversarial_weight": 0.0}}


def load_autoencoder(model_folder: str | Path, dtype: Any = None) -> tuple[FrozenAutoencoder, Params]:
    """The autoencoder in `model_folder/vae` and its parameters (float32). ValueError: missing or not fitting."""
    folder = Path(model_folder) / "vae"
    autoencoder = FrozenAutoencoder.from_config(load_config(folder), dtype)
    size = 2 * autoencoder.network.downsampling
    images = jax.ShapeDtypeStruct((1, size, size, autoencoder.network.in_channels), jnp.float32)
    template = jax.eval_shape(autoencoder.network.init, jax.random.key(0), images, jax.random.key(0))["params"]
    return autoencoder, load_part(folder, template)


class TextPart(NamedTuple):
    """Tokenizer, text encoder and its parameters."""

    tokenizer: CLIPTokenizer
    network: CLIPTextEncoder
    params: Params

    def encode(self, params: Params, tokens: jax.Array) -> jax.Array:
        """tokens int32 `(B, L)` -> `(B, L, D)` float32, what cross-attention reads."""
        return self.network.apply({"params": params}, tokens).last_hidden_state.astype(jnp.float32)


def load_text_encoder(model_folder: str | Path, dtype: Any = None) -> TextPart:
    """The tokenizer and the text encoder of a model folder. ValueError: missing or not fitting."""
    folder = Path(model_folder) / "text_encoder"
    fields = {k: v for k, v in load_config(folder).items() if k in CLIPTextEncoder.__dataclass_fields__}
    if dtype is not None:
        fields["dtype"] = dtype
    network = build_network(CLIPTextEncoder, fields, "text_encoder/config.json")
    tokenizer = load_tokenizer(Path(model_folder) / "tokenizer")
    tokens = jax.ShapeDtypeStruct((1, tokenizer.model_max_length), jnp.int32)
    template = jax.eval_shape(network.init, jax.random.key(0), tokens)["params"]
    return TextPart(tokenizer, network, load_part(folder, template))


def load_stage(
    folder: str | Path, kind: type[Stage], latent_channels: int, context_size: int, dtype: Any = None
) -> tuple[Any, Params]:
    """A stage and the parameters of its one part, as `export` wrote them.

    Args:
      folder: the part, with config.json and weights.
      kind: the stage that is expected there.
      latent_channels: channels of the autoencoder's latents.
      context_size: width of the text states.
      dtype: name of the compute type of its networks and of the parameters; None: as the config says, and float32.

    Raises:
      ValueError: the part is missing, is of another kind, has an unknown field, or its weights do not fit.
    """
    folder = Path(folder)
    config = load_config(folder)
    name = config.pop("_class_name", None)
    if name != kind.__name__:
        raise ValueError(f"{folder / 'config.json'} describes a {name}, but a {kind.__name__} is needed")
    settings = {k: v for k, v in config.items() if not k.startswith("_")} | _READ_WITH.get(name, {})
    if dtype is not None:
        networks = {k: v for k, v in settings.items() if isinstance(v, Mapping) and k != "schedule"}
        settings |= {k: {**v, "dtype": dtype} for k, v in networks.items()}
    stage = build_network(kind, settings, str(folder / "config.json"))
    try:
        params = jax.eval_shape(stage.init, jax.random.key(0), _template_batch(stage, latent_channels, context_size))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    (part,) = stage.parts()
    return stage, load_part(folder, params[part], dtype)


def _template_batch(stage: Any, channels: int, context_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch that tells the parameters' shapes: they depend on the channels, not on the size of the frames."""
    side = getattr(stage, "resolution", 16)
    num_frames = 1 if isinstance(stage, ReferenceStage) else getattr(stage, "factor", 1) + 1

    def floats(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    return {
        "latents": floats(1, num_frames, side, side, channels),
        "context": floats(1, 2, context_size),
    }
