"""A model folder or hub id as training reads it: each part when it is first asked for."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import Params
from videogen_jax.weights.folder import load_part
from videogen_jax.weights.hub import resolve
from videogen_jax.weights.parts import (
    TextPart,
    load_autoencoder,
    load_autoencoder_config,
    load_model_tokenizer,
    load_text_encoder,
    part_prefix,
)
from videogen_jax.weights.tokenizer import single_tokens, tokenize

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

    from videogen_jax.weights.public_parts import ImagePart


class ModelFolder:
    """The parts of a model. Errors are ValueErrors that name the part that is missing or does not fit.

    Args:
      model: a folder, or a hub id, which is resolved (and downloaded) when something is first read.
      perceptual_weights: a folder with the safetensors of VGG-16's features, which no model folder has; "" for none.
      motion_adapter: AnimateDiff's, for a model that is Stable Diffusion: see `MotionAdapter.find`; "" for none.
    """

    def __init__(self, model: str | Path, perceptual_weights: str = "", motion_adapter: str = ""):
        self.model = model
        self.perceptual_weights = perceptual_weights
        self.motion_adapter = motion_adapter

    @functools.cached_property
    def path(self) -> Path:
        """The folder on this machine."""
        return resolve(self.model)

    def has(self, part: str) -> bool:
        """Whether there is a folder of this part."""
        return (self.path / part).is_dir()

    def part(self, part: str, template: Params) -> Params:
        """The parameters of a part.

        Args:
          part: its folder's name; "" if the model folder is the part itself.
          template: a tree of arrays or shapes, as `weights.folder.load_part` takes it.
        """
        folder = self.path / part
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(template))
        return load_part(folder, shapes, prefix=part_prefix(folder))

    def autoencoder(self, dtype: Any = None) -> FrozenAutoencoder:
        """The autoencoder without its parameters. dtype: as in `load_autoencoder_config`."""
        return load_autoencoder_config(self.path, dtype)

    @functools.cached_property
    def autoencoder_params(self) -> Params:
        """The autoencoder's parameters, float32; read once for all that use them: samples, encoder, warm start."""
        return load_autoencoder(self.path)[1]

    @property
    def tokenizer(self) -> "CLIPTokenizer":
        """The tokenizer of the text encoder."""
        return load_model_tokenizer(self.path)

    def text_encoder(self, dtype: Any = None) -> TextPart:
        """The tokenizer and the text encoder. dtype: as in `load_text_encoder`."""
        return load_text_encoder(self.path, dtype)

    def image_encoder(self, square: bool) -> "ImagePart":
        """The image encoder of a public video model. square: it sees the central square of an image alone."""
        from videogen_jax.weights.public_parts import ImagePart, SquareImagePart, load_image_encoder

        return load_image_encoder(self.path, kind=SquareImagePart if square else ImagePart)

    def motion_unet(self, template: Params, image_channels: int) -> Params:
        """Stable Diffusion's UNet with motion modules: the adapter's, or as in `template` where there is none.

        Args:
          template: fresh parameters of the UNet with motion modules.
          image_channels: of the latents; the UNet of PIA takes more.
        """
        from videogen_jax.weights.motion_adapter import motion_unet

        return motion_unet(self.path, self.motion_adapter, template, image_channels)

    def video_unet(self, template: Params, image_channels: int) -> Params | None:
        """The UNet of a public video model, for a stage that joins a reference image to its input.

        Args:
          template: fresh parameters of the stage's UNet.
          image_channels: C, of the latents.

        Returns: see `weights.public_unets.load_video_unet`; None: the folder has no such UNet.
        """
        from videogen_jax.weights.public_unets import load_video_unet

        return load_video_unet(self.path, self.motion_adapter, template, image_channels)

    def null_context(self) -> jax.Array:
        """The text states of the empty prompt, `(L, D)` float32."""
        text = self.text_encoder()
        return text.encode(text.params, jnp.asarray(tokenize(text.tokenizer, [""])))[0]

    def single_tokens(self, words: Sequence[str]) -> np.ndarray:
        """The token of each word, int32 `(N,)`. ValueError: a word is several tokens."""
        return np.asarray(single_tokens(self.tokenizer, words), np.int32)

    def perceptual_params(self, template: Params) -> Params:
        """VGG-16's parameters. template: their shapes."""
        return load_part(self.perceptual_weights, template)
