"""The trained parts of a model folder as the networks that the stages use."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from transformers import CLIPTokenizer

from videogen_jax.data.vocabulary import load_tokenizer
from videogen_jax.models.text_encoder import CLIPTextEncoder
from videogen_jax.stages.autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import Params, build_network
from videogen_jax.weights.folder import load_config, load_part


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
