"""A VideoGen model, loaded: its parts, their parameters, and the pure functions that a pipeline compiles.

A model on disk is a folder in diffusers' style: `model_index.json` and a folder for each part.
"""

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
from absl import logging

from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.runtime.arrays import to_uint8, to_unit
from videogen_jax.sampling.text_to_image import TEXT, UNET, VAE, TextToImage
from videogen_jax.stages.autoencoder import FrozenAutoencoder
from videogen_jax.stages.cascade import CascadeStage, Conditions
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.stage import Params
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.weights.model_index import REFERENCE, UPSAMPLER, ModelIndex, StageSettings
from videogen_jax.weights.parts import TextPart, load_autoencoder, load_stage, load_text_encoder
from videogen_jax.weights.tokenizer import known_words, unknown_words

DECODER = "video_decoder"  # its folder
Size = tuple[int, int]
_SETTINGS_SUFFIXES, _SAMPLED_BYTES = (".json", ".txt"), 2**20


@dataclasses.dataclass
class VideoGenModel:
    """The parts of a model. Made by `from_pretrained`.

    The methods that take parameters are pure functions of their arrays, to be traced; `self` is a constant of theirs.

    Attributes:
      index: what the model folder says of itself.
      name: what recipes call the model: the folder or hub id by which it can be found again.
      text, autoencoder, reference, cascade, temporal, decoder: the parts; `reference`, `temporal` and `decoder` are
        None where the model lacks them.
      params: the parameters of each part, on the device, by the part's folder; under "reference" those of all parts of
        the text-to-image model.
      dtype: in which the networks compute.
      reference_model: the folder of the text-to-image model, where it is not the model's own.
    """

    index: ModelIndex
    name: str
    text: TextPart
    autoencoder: FrozenAutoencoder
    reference: TextToImage | None
    cascade: tuple[CascadeStage, ...]
    temporal: TemporalStage | None
    decoder: DecoderStage | None
    params: Mapping[str, Params]
    dtype: str = "float32"
    reference_model: Path | None = None

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        dtype: str | None = None,
        reference_model: str | os.PathLike | None = None,
        name: str | None = None,
    ) -> Self:
        """Loads a model folder.

        Args:
          folder: with `model_index.json` and a folder for each part. Without `temporal_upsampler` videos stay at the
            base frame rate; without `video_decoder` the image decoder is used; without `unet` a reference image has to
            be given.
          dtype: "float32", "bfloat16" or "float16", in which the networks compute; None: float32 on a CPU, where it is
            the fastest, bfloat16 elsewhere. Sampling itself is always in float32.
          reference_model: a folder in diffusers' layout (Stable Diffusion 1.x, 2.x or XL) that draws the reference
            images instead of the model's own `unet`, with its own text encoder, autoencoder and size of picture.
          name: see the attribute; None: the folder as it is given.

        Raises:
          ValueError: the folder is no model folder, or a part is missing, of another kind, or does not fit its weights.
        """
        index = ModelIndex.read(folder)
        dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        text = load_text_encoder(index.folder, dtype)
        autoencoder, vae_params = load_autoencoder(index.folder, dtype)
        channels, width = autoencoder.network.latent_channels, text.network.hidden_size
        params = {TEXT[0]: text.params, VAE: vae_params}

        def load(part: str, kind: type, without: str) -> Any:
            if without and not index.has(part):
                logging.warning("The model has no %s: %s", part, without)
                return None
            stage, params[part] = load_stage(index.folder / part, kind, channels, width, dtype)
            return stage

        reference = None
        if reference_model is not None:
            index = index.with_reference(TextToImage.default_settings(reference_model))
            reference, params[REFERENCE] = TextToImage.from_pretrained(reference_model, dtype)
        elif index.has(UNET):
            shared = {"text": text, "autoencoder": (autoencoder, vae_params)}
            reference, parts = TextToImage.from_pretrained(index.folder, dtype, **shared)
            params[REFERENCE] = {UNET: parts[UNET]}
        else:
            logging.warning("The model has no %s: a reference image has to be given", UNET)
        cascade = tuple(load(part, CascadeStage, "") for part in index.cascade)
        temporal = load(UPSAMPLER, TemporalStage, "videos stay at the base frame rate")
        decoder = load(DECODER, DecoderStage, "frames are decoded one by one, by the image decoder")
        below = None
        for part, stage in zip(index.cascade, cascade, strict=True):
            if stage.lower_resolution != below:
                raise ValueError(
                    f"{index.folder / part} takes latents of side {stage.lower_resolution}, "
                    f"but the stage below it in the cascade makes {below}"
                )
            below = stage.resolution
        for stage in cascade:
            stage.noise_schedule  # noqa: B018  (worked out here, since it must be no part of a program that is traced)
        text = text._replace(params=None)
        params = jax.device_put(params)
        if reference is not None and reference_model is None:
            params[REFERENCE] |= {part: params[part] for part in (TEXT[0], VAE)}
        return cls(
            index,
            str(folder) if name is None else name,
            text,
            autoencoder,
            reference,
            cascade,
            temporal,
            decoder,
            params,
            dtype,
            None if reference_model is None else Path(reference_model),
        )

    @property
    def resolution(self) -> int:
        """Side in pixels of the frames that the model was trained on."""
        return self.cascade[-1].resolution * self.autoencoder.network.downsampling

    @property
    def known_words(self) -> list[str]:
        """The words that the vocabulary was trained on, sorted; empty where it was learnt from open text."""
        return known_words(self.text.tokenizer)

    def unknown_words(self, prompt: str) -> list[str]:
        """The prompt's words that are not among `known_words`, where there are such."""
        return unknown_words(self.text.tokenizer, prompt)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, by which a recipe knows the model again, whatever its folder is called.

        Of all settings, and of each file of weights its name, its size and 1 MiB at its start, middle and end: a
        trained model differs from any other everywhere.
        """
        digest = hashlib.sha256()
        for folder in (self.index.folder, *([] if self.reference_model is None else [self.reference_model])):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                weights = path.suffix in (".safetensors", ".msgpack")
                if weights or path.suffix in _SETTINGS_SUFFIXES:
                    size = path.stat().st_size
                    digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
                    with path.open("rb") as file:
                        for start in (0, size // 2, size - _SAMPLED_BYTES) if weights else (0,):
                            file.seek(max(0, start))
                            digest.update(file.read(_SAMPLED_BYTES))
        return digest.hexdigest()

    # Sizes. The networks are convolutional, so a video may have another size than those that they were trained on, as
    # long as the latents of each stage can be halved as often as its UNet does.

    @property
    def size_multiple(self) -> int:
        """What height and width of a video are multiples of, in pixels."""
        sides = [(stage.network, stage.resolution) for stage in self.cascade]
        if self.reference is not None:
            sides.append((self.reference.stage.network, self._reference_side))
        pixels = (
            Fraction(self.resolution * 2 ** (len(network.block_out_channels) - 1), side) for network, side in sides
        )
        return math.lcm(*(multiple.numerator for multiple in pixels))

    def check_size(self, size: Size) -> None:
        """Raises ValueError unless the model can make videos of `size`, (height, width) in pixels."""
        multiple = self.size_multiple
        if len(size) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 or n % multiple for n in size):
            raise ValueError(
                f"size is {'x'.join(map(str, size))}, but height and width must be multiples of {multiple} pixels"
            )

    def latent_size(self, side: int, size: Size) -> Size:
        """(h, w) of latents, of side `side` where the model was trained, in a video of `size` pixels."""
        return size[0] * side // self.resolution, size[1] * side // self.resolution

    @property
    def _reference_side(self) -> int:
        """Side of the reference latents when they are drawn, for videos of the side that the model was trained on."""
        return self.reference.sample_size or self.cascade[-1].resolution

    # Text.

    @property
    def shares_text(self) -> bool:
        """Whether the reference images are drawn from the same text states as the cascade's latents."""
        return self.reference is None or self.reference.texts[0].network is self.text.network

    def encode_text(self, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Token ids `(B + 1, L)`, the last row the empty prompt's -> text states `(B, L, D)` and `(L, D)`."""
        states = self.text.encode(params, tokens)
        return states[:-1], states[-1]

    def encode_reference_text(self, params: Params, tokens: tuple[jax.Array, ...]) -> tuple[Prompts, Prompts]:
        """What a reference model with text encoders of its own is told; see `TextToImage.encode`."""
        return self.reference.encode(params, tokens, self._reference_side)

    # The reference image.

    def start_reference(
        self, at: StageSettings, size: Size, seeds: jax.Array, prompts: Prompts, empty: Prompts
    ) -> tuple[SamplerState, Prompts]:
        """See `ReferenceStage.start`. size: of the video, in pixels; seeds: `(B,)` uint32."""
        latents = self.latent_size(self._reference_side, size)
        return self.reference.stage.start(stage_keys(seeds, 0), prompts, empty, latents, at.sampler, at.guided)

    def step_reference(
        self, sampler: str, params: Params, state, told, row, guidance_scale, reference_guidance_scale
    ) -> SamplerState:
        """See `ReferenceStage.step`; there is no reference yet, whose weight could matter."""
        del reference_guidance_scale
        return self.reference.stage.step(params[UNET], state, told, row, guidance_scale, sampler)

    def decode_reference(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents `(B, 1, h, w, C)` -> images uint8 `(B, H, W, 3)`."""
        return to_uint8(self.reference.decode(params, latents))

    def encode_reference(self, params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
        """Images uint8 `(B, H, W, 3)` of the video's size -> their latents `(B, 1, h, w, C)` for each cascade stage."""
        frames, size = to_unit(images)[:, None], images.shape[1:3]
        sizes = [self.latent_size(stage.resolution, size) for stage in self.cascade]
        return tuple(self.autoencoder.encode(params, frames, latents) for latents in sizes)

    # The cascade.

    def start_cascade(
        self, position: int, at: StageSettings, seeds, context, null_context, reference, lower, noise_level
    ) -> tuple[SamplerState, Conditions]:
        """See `CascadeStage.start`, of the stage at `position`."""
        return self.cascade[position].start(
            stage_keys(seeds, position + 1),
            context,
            null_context,
            reference,
            lower,
            self.index.num_frames,
            at.sampler,
            noise_level=noise_level,
            fps=self.index.fps,
            branches=at.branches,
        )

    def step_cascade(
        self, position: int, sampler: str, params: Params, state, told, row, guidance_scale, reference_guidance_scale
    ) -> SamplerState:
        """See `CascadeStage.step`."""
        stage = self.cascade[position]
        return stage.step(params, state, told, row, guidance_scale, reference_guidance_scale, sampler)

    # From latents to frames.

    def upsample(self, factor: int, params: Params, latents: jax.Array) -> jax.Array:
        """Latents `(B, F, h, w, C)` -> `(B, (F - 1) * factor + 1, h, w, C)` float32."""
        return self.temporal.upsample(params, latents, factor).astype(jnp.float32)

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents `(B, n, h, w, C)` -> frames uint8 `(B, n, H, W, 3)`, by the video decoder if there is one.

        One video after another: a window of frames is work enough, and more videos at once need as much more memory.
        """
        if self.decoder is None:
            return self.decode_images(params, latents)
        return jax.lax.map(
            lambda z: to_uint8(self.decoder.decode(params, self.autoencoder.unscale(z[None])))[0], latents
        )

    def decode_images(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents `(B, n, h, w, C)` -> frames uint8 `(B, n, H, W, 3)`, each by itself, by the image decoder."""
        return to_uint8(self.autoencoder.decode(params, latents))


def stage_keys(seeds: jax.Array, stage: int) -> jax.Array:
    """One key an example and stage, `(B,)`, from uint32 seeds `(B,)`."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), stage))(seeds)
