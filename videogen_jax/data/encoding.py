"""What the stages read, made by the frozen networks from frames and captions: latents and text states."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.runtime.arrays import to_unit
from videogen_jax.stages.autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import Batch, Params
from videogen_jax.weights.model_folder import ModelFolder
from videogen_jax.weights.parts import TextPart
from videogen_jax.weights.tokenizer import tokenize


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Frozen networks, without their parameters, which `encode` is handed.

    Attributes:
      autoencoder: makes latents.
      resolutions: name of an array of latents -> side of the latents.
      text: makes text states; None where there are no captions.
    """

    autoencoder: FrozenAutoencoder
    resolutions: Mapping[str, int]
    text: TextPart | None = None

    @property
    def pixels(self) -> int:
        """The side of the frames that the largest latents are made from."""
        return max(self.resolutions.values()) * self.autoencoder.network.downsampling

    def encode(self, params: Params, batch: Batch) -> dict[str, jax.Array]:
        """The arrays of a batch with its pictures and words turned into what a stage reads.

        Args:
          params: {"vae": ..., "text_encoder": ...}, as `load_encoder` gives them.
          batch: `video` uint8 `(B, T, H, W, 3)`; `tokens` int32 `(B, L)`, if there is text.

        Returns: `latents...` `(B, T, h, w, C)` for each of `resolutions`, `context` `(B, L, D)`, float32.
        """
        frames = to_unit(batch["video"])
        arrays = {name: self.autoencoder.encode(params["vae"], frames, side) for name, side in self.resolutions.items()}
        if self.text is not None:
            arrays["context"] = self.text.encode(params["text_encoder"], batch["tokens"])
        return arrays

    def shapes(self, num_frames: int) -> dict[str, tuple[int, ...]]:
        """The shapes of what `encode` gives of one clip."""
        channels = self.autoencoder.network.latent_channels
        shapes: dict[str, tuple[int, ...]] = {
            name: (num_frames, side, side, channels) for name, side in self.resolutions.items()
        }
        if self.text is not None:
            shapes["context"] = (self.text.tokenizer.model_max_length, self.text.network.hidden_size)
        return shapes

    def tokens(self, captions: list[str]) -> np.ndarray:
        """int32 `(B, L)`; long captions are cut without a word."""
        return tokenize(self.text.tokenizer, captions, warn=False)


def load_encoder(
    model: ModelFolder, resolutions: Mapping[str, int], text: bool, dtype: Any = None
) -> tuple[Encoder, dict[str, Params]]:
    """The encoder of a model (`vae`, and `tokenizer` and `text_encoder` with `text`), and its parameters.

    Raises:
      ValueError: a part is missing or does not fit.
    """
    autoencoder = model.autoencoder(dtype)
    params = {"vae": model.autoencoder_params}
    part = None
    if text:
        loaded = model.text_encoder(dtype)
        params["text_encoder"] = loaded.params
        part = loaded._replace(params=None)
    return Encoder(autoencoder, dict(resolutions), part), params


def as_stored(array: jax.Array) -> jax.Array:
    """Half precision, as latents and text states lie on disk."""
    return array.astype(jnp.float16)
