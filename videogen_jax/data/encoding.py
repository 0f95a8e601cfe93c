"""The inputs of the stages, computed from frames and captions by the frozen networks: latents and text states."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.runtime.arrays import to_unit
from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import Batch, Params
from videogen_jax.weights.model_folder import ModelFolder
from videogen_jax.weights.parts import TextPart
from videogen_jax.weights.tokenizer import tokenize


@dataclasses.dataclass(frozen=True)
class Encoder:
    """The frozen networks that encode clips; their parameters are passed to `encode`.

    Attributes:
      autoencoder: encodes frames as latents.
      resolutions: name of an array of latents -> side of the latents.
      text: encodes captions as text states; None if there are no captions.
    """

    autoencoder: FrozenAutoencoder
    resolutions: Mapping[str, int]
    text: TextPart | None = None

    @property
    def pixels(self) -> int:
        """Side in pixels of the frames that the largest latents are encoded from."""
        return max(self.resolutions.values()) * self.autoencoder.network.downsampling

    def encode(self, params: Params, batch: Batch) -> dict[str, jax.Array]:
        """Encode a batch of clips and captions.

        Args:
          params: {"vae": ..., "text_encoder": ...}, from `load_encoder`.
          batch: `video` uint8 `(B, T, H, W, 3)` and, with a text encoder, `tokens` int32 `(B, L)`.

        Returns: float32 latents `(B, T, h, w, C)` under each name in `resolutions` and, with a text encoder,
        `context` `(B, L, D)`.
        """
        frames = to_unit(batch["video"])
        arrays = {name: self.autoencoder.encode(params["vae"], frames, side) for name, side in self.resolutions.items()}
        if self.text is not None:
            arrays["context"] = self.text.encode(params["text_encoder"], batch["tokens"])
        return arrays

    def shapes(self, num_frames: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays that `encode` returns, without the batch axis."""
        channels = self.autoencoder.network.latent_channels
        shapes: dict[str, tuple[int, ...]] = {
            name: (num_frames, side, side, channels) for name, side in self.resolutions.items()
        }
        if self.text is not None:
            shapes["context"] = (self.text.tokenizer.model_max_length, self.text.network.hidden_size)
        return shapes

    def tokens(self, captions: list[str]) -> np.ndarray:
        """Tokenize captions to int32 `(B, L)`; long ones are truncated without a warning."""
        return tokenize(self.text.tokenizer, captions, warn=False)


def load_encoder(
    model: ModelFolder, resolutions: Mapping[str, int], text: bool, dtype: Any = None
) -> tuple[Encoder, dict[str, Params]]:
    """Load an encoder and its parameters of a model.

    Args:
      model: has the parts `vae` and, with `text`, `tokenizer` and `text_encoder`.
      resolutions: see `Encoder`.
      text: whether to load the text encoder.
      dtype: in which the networks compute; None for float32.

    Raises:
      ValueError: a part is missing, or its weights do not fit its config.
    """
    autoencoder = model.autoencoder(dtype)
    params = {"vae": model.autoencoder_params}
    part = None
    if text:
        loaded = model.text_encoder(dtype)
        params["text_encoder"] = loaded.params
        part = loaded._replace(params=None)
    return Encoder(autoencoder, dict(resolutions), part), params


def to_storage_dtype(array: jax.Array) -> jax.Array:
    """Cast to half precision, in which latents and text states are stored on disk."""
    return array.astype(jnp.float16)
