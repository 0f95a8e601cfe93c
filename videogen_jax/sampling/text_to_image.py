"""Text to image with a folder in diffusers' layout: Stable Diffusion 1.x, 2.x and XL, or a reference trained here."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.reference import Prompts, ReferenceStage
from videogen_jax.stages.stage import Params
from videogen_jax.weights.folder import read_model_index
from videogen_jax.weights.model_index import UNET, VAE
from videogen_jax.weights.parts import TextPart, load_autoencoder, load_reference, load_text_encoder
from videogen_jax.weights.scheduler_config import load_scheduler
from videogen_jax.weights.tokenizer import tokenize

TEXT = ("text_encoder", "text_encoder_2")  # folders of the text encoders


@dataclasses.dataclass(frozen=True)
class TextToImage:
    """A text-to-image model. Its methods are pure functions of their arrays, to be traced; it holds no parameters.

    Attributes:
      texts: tokenizer and text encoder, for Stable Diffusion XL two of them; their `params` are None.
      stage: the UNet with its noise schedule.
      autoencoder: of the latents.
      sampler: what the folder's scheduler asks for, one of `samplers.SAMPLERS`.
      sample_size: side of the latents that the UNet was trained for, or None if its config does not say.
      zeros_for_empty: the empty prompt is encoded as zeros (Stable Diffusion XL).
    """

    texts: tuple[TextPart, ...]
    stage: ReferenceStage
    autoencoder: FrozenAutoencoder
    sampler: str
    sample_size: int | None = None
    zeros_for_empty: bool = False

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        dtype: str | None = None,
        text: TextPart | None = None,
        autoencoder: tuple[FrozenAutoencoder, Params] | None = None,
    ) -> tuple["TextToImage", dict[str, Params]]:
        """Loads a folder.

        Args:
          folder: with `unet`, `scheduler`, `vae`, `text_encoder`, `tokenizer`, and for XL `text_encoder_2` and
            `tokenizer_2`.
          dtype: in which the networks compute; None: float32.
          text, autoencoder: parts of the folder that are loaded already.

        Returns: the model, and the parameters of its parts by the names of their folders (host arrays).

        Raises:
          ValueError: a part is missing, of another kind, has an unsupported field, or does not fit its weights or the
            other parts.
        """
        folder = Path(folder)
        reference = load_reference(folder, dtype)
        texts = [text or load_text_encoder(folder, dtype)]
        if (folder / TEXT[1]).is_dir():
            texts.append(load_text_encoder(folder, dtype, number=2))
        autoencoder, vae = autoencoder or load_autoencoder(folder, dtype)
        fields = reference.stage.network
        width = sum(text.network.hidden_size for text in texts)
        if fields.cross_attention_dim != width:
            raise ValueError(
                f"{folder}: the UNet attends to text states of width {fields.cross_attention_dim}, "
                f"but those of the text encoders are {width} wide"
            )
        if (fields.size_embedding_dim is None) != (len(texts) == 1) or (len(texts) == 2 and not _pools(texts[1])):
            raise ValueError(f"{folder}: a UNet takes sizes if and only if there is a text_encoder_2 with a projection")
        channels = autoencoder.network.latent_channels
        if (fields.in_channels, fields.out_channels) != (channels, channels):
            raise ValueError(
                f"{folder}: the UNet takes {fields.in_channels} channels and makes {fields.out_channels}, but latents "
                f"have {channels}: models for inpainting and the like cannot draw from text alone"
            )
        index = read_model_index(folder)
        zeros = bool(index.get("force_zeros_for_empty_prompt", len(texts) == 2)) and len(texts) == 2
        params = {UNET: reference.params, VAE: vae}
        params |= {name: text.params for name, text in zip(TEXT, texts, strict=False)}
        texts = tuple(text._replace(params=None) for text in texts)
        reference.stage.noise_schedule  # noqa: B018  (worked out here: it must be no part of a program that is traced)
        return cls(texts, reference.stage, autoencoder, reference.sampler, reference.sample_size, zeros), params

    @staticmethod
    def default_settings(folder: str | os.PathLike) -> dict[str, Any]:
        """How a folder's pictures are drawn unless asked otherwise: its scheduler, usual guidance; reads no weights."""
        guidance_scale = 5.0 if (Path(folder) / TEXT[1]).is_dir() else 7.5
        return {"sampler": load_scheduler(folder).sampler, "steps": 30, "guidance_scale": guidance_scale}

    @property
    def resolution(self) -> int | None:
        """Side of the pictures that it was trained for, in pixels."""
        return None if self.sample_size is None else self.sample_size * self.autoencoder.network.downsampling

    def tokenize(self, prompts: Sequence[str]) -> tuple[np.ndarray, ...]:
        """For each text encoder int32 `(B + 1, L)`: the prompts, and the empty prompt."""
        return tuple(tokenize(text.tokenizer, [*prompts, ""]) for text in self.texts)

    def encode(
        self, params: Mapping[str, Params], tokens: Sequence[jax.Array], size: tuple[int, int]
    ) -> tuple[Prompts, Prompts]:
        """The UNet's conditioning for B prompts and for the empty one, from `tokenize`; `size` in latents.

        Stable Diffusion XL attends to the penultimate states of both its text encoders, and takes the projected state
        of the second besides (Podell et al. 2023, section 2.1); the others attend to the last states.
        """
        if len(self.texts) == 1:
            states = self.texts[0].encode(params[TEXT[0]], tokens[0])
            return Prompts(states[:-1]), Prompts(states[-1:])
        features = [
            text.network.apply({"params": params[name]}, ids)
            for text, name, ids in zip(self.texts, TEXT, tokens, strict=True)
        ]
        context = jnp.concatenate([f.hidden_states[-2] for f in features], axis=-1).astype(jnp.float32)
        pooled = features[1].projected.astype(jnp.float32)
        height, width = (side * self.autoencoder.network.downsampling for side in size)
        sizes = jnp.broadcast_to(jnp.array([height, width, 0, 0, height, width], jnp.float32), (len(pooled), 6))
        empty = Prompts(context[-1:], pooled[-1:], sizes[-1:])
        if self.zeros_for_empty:
            empty = empty._replace(context=0 * empty.context, pooled=0 * empty.pooled)
        return Prompts(context[:-1], pooled[:-1], sizes[:-1]), empty

    def decode(self, params: Mapping[str, Params], latents: jax.Array) -> jax.Array:
        """Latents `(B, 1, h, w, C)` -> images `(B, H, W, 3)` float32 in [-1, 1] (not clipped)."""
        return self.autoencoder.decode(params[VAE], latents)[:, 0]


def _pools(text: TextPart) -> bool:
    return text.network.projection_dim is not None
