"""A VideoGen model, loaded: its parts, their parameters, and the pure functions that sampling compiles.

A model on disk is a folder in diffusers' style: `model_index.json` and a folder for each part.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from absl import logging

from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.runtime.arrays import to_uint8, to_unit
from videogen_jax.sampling.request import Size
from videogen_jax.sampling.source import ModelSource
from videogen_jax.sampling.text_to_image import TEXT, TextToImage
from videogen_jax.stages.cascade import CascadeInputs, CascadeStage, Conditioning
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.image_to_video import ImageInputs, ImageToVideoStage
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.stage import Params
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.weights.fingerprint import model_fingerprint
from videogen_jax.weights.model_index import DECODER, IMAGE_ENCODER, REFERENCE, UNET, UPSAMPLER, VAE, ModelIndex
from videogen_jax.weights.parts import (
    ImagePart,
    TextPart,
    load_autoencoder,
    load_image_encoder,
    load_image_to_video,
    load_stage,
    load_temporal_decoder_config,
    load_text_encoder,
)


@dataclasses.dataclass(eq=False, repr=False)
class VideoGenModel:
    """The parts of a model. Made by `load`.

    The methods that take parameters are pure functions of their arrays, to be traced; `self` is a constant in them.

    Attributes:
      index: what the model folder says of itself.
      name: what recipes call the model: the folder or hub id by which it can be found again.
      text, autoencoder, reference, cascade, temporal, decoder, image_encoder: the parts; those that the model lacks are
        None. A model with an `image_encoder` is Stable Video Diffusion, which reads no text.
      params: the parameters of each part, on the device, by the part's folder; under "reference" those of all parts of
        the text-to-image model.
      dtype: in which the networks compute.
    """

    index: ModelIndex
    name: str
    text: TextPart | None
    autoencoder: FrozenAutoencoder
    reference: TextToImage | None
    cascade: tuple[CascadeStage | ImageToVideoStage, ...]
    temporal: TemporalStage | None
    decoder: DecoderStage | None
    params: Mapping[str, Params]
    dtype: str = "float32"
    image_encoder: ImagePart | None = None

    @classmethod
    def load(cls, source: ModelSource, dtype: str | None = None) -> Self:
        """Load the parts of a model.

        Without `temporal_upsampler` videos stay at the base frame rate; without `video_decoder` the image decoder is
        used; without `unet` a reference image has to be given.

        Args:
          source: where they are.
          dtype: "float32", "bfloat16" or "float16", in which the networks compute; None: float32 on a CPU, where it is
            the fastest, bfloat16 elsewhere. Sampling itself is always in float32.

        Raises:
          ValueError: a part is missing, of another kind, or does not fit its weights or its neighbours.
        """
        index, dtype = source.index, dtype or default_dtype()
        if not index.reads_text:
            return cls._load_image_to_video(source, dtype)
        text = load_text_encoder(index.folder, dtype)
        autoencoder, vae_params = load_autoencoder(index.folder, dtype)
        channels, width = autoencoder.network.latent_channels, text.network.hidden_size
        params = {TEXT[0]: text.params, VAE: vae_params}

        def load(part: str, kind: type, without: str = "") -> Any:
            if without and not index.has(part):
                logging.warning("The model has no %s: %s", part, without)
                return None
            stage, params[part] = load_stage(index.folder / part, kind, channels, width, dtype)
            return stage

        reference = None
        if index.reference_folder is not None:
            reference, params[REFERENCE] = TextToImage.from_pretrained(index.reference_folder, dtype)
        elif index.has(UNET):
            shared = {"text": text, "autoencoder": (autoencoder, vae_params)}
            reference, parts = TextToImage.from_pretrained(index.folder, dtype, **shared)
            params[REFERENCE] = {UNET: parts[UNET]}
        else:
            logging.warning("The model has no %s: a reference image has to be given", UNET)
        cascade = tuple(load(part, CascadeStage) for part in index.cascade)
        temporal = load(UPSAMPLER, TemporalStage, "videos stay at the base frame rate")
        decoder = load(DECODER, DecoderStage, "frames are decoded one by one, by the image decoder")
        _check_cascade(index, cascade)
        params = jax.device_put(params)
        if reference is not None and index.reference_folder is None:
            params[REFERENCE] |= {part: params[part] for part in (TEXT[0], VAE)}
        text = text._replace(params=None)
        return cls(index, source.name, text, autoencoder, reference, cascade, temporal, decoder, params, dtype)

    @classmethod
    def _load_image_to_video(cls, source: ModelSource, dtype: str) -> Self:
        """Load Stable Video Diffusion; errors as of `load`."""
        index, params, reference = source.index, {}, None
        if index.reference_folder is not None:
            reference, params[REFERENCE] = TextToImage.from_pretrained(index.reference_folder, dtype)
        image_encoder = load_image_encoder(index.folder, dtype)
        autoencoder, params[VAE] = load_autoencoder(index.folder, dtype)
        (name,) = index.cascade
        stage, params[name] = load_image_to_video(index.folder, image_encoder.network.projection_dim, dtype)
        params[IMAGE_ENCODER] = image_encoder.params
        image_encoder = image_encoder._replace(params=None)
        params = jax.device_put(params)
        params[DECODER] = params[VAE]["decoder"]
        return cls(
            index,
            source.name,
            text=None,
            autoencoder=autoencoder,
            reference=reference,
            cascade=(stage,),
            temporal=None,
            decoder=load_temporal_decoder_config(index.folder, dtype),
            params=params,
            dtype=dtype,
            image_encoder=image_encoder,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, cascade={self.index.cascade}, dtype={self.dtype!r})"

    @property
    def resolution(self) -> int:
        """Side in pixels of the frames that the model was trained on."""
        return self.index.resolution

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, by which a recipe recognises the model: see `model_fingerprint`."""
        return model_fingerprint(filter(None, (self.index.folder, self.index.reference_folder)))

    def latent_size(self, side: int, size: Size) -> Size:
        """(h, w) of latents, of side `side` where the model was trained, in a video of `size` pixels."""
        return size[0] * side // self.resolution, size[1] * side // self.resolution

    # Text.

    @property
    def shares_text(self) -> bool:
        """Whether the reference images are drawn from the same text states as the cascade's latents."""
        return self.reference is None or self.reference.texts[0].network is self.text.network

    def encode_text(self, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Token ids `(B + 1, L)`, the empty prompt's last -> text states `(B, L, D)` and `(1, L, D)`."""
        states = self.text.encode(params, tokens)
        return states[:-1], states[-1:]

    def encode_reference_text(self, params: Params, tokens: tuple[jax.Array, ...]) -> tuple[Prompts, Prompts]:
        """The conditioning of a reference model with text encoders of its own; see `TextToImage.encode`."""
        return self.reference.encode(params, tokens, self._reference_side)

    # The reference image.

    @property
    def _reference_side(self) -> int:
        """Side of the reference latents when they are drawn, for videos of the side that the model was trained on."""
        own = 64 if self.image_encoder is not None else self.cascade[-1].resolution
        return self.reference.sample_size or own

    def reference_latent_size(self, size: Size) -> Size:
        """(h, w) of the reference latents when they are drawn, for videos of `size` pixels.

        With an image encoder the video's size says nothing of the text-to-image model's: as many pixels as that model
        was trained for, in the video's shape.
        """
        if self.image_encoder is None:
            return self.latent_size(self._reference_side, size)
        multiple = 2 ** (len(self.reference.stage.network.block_out_channels) - 1)
        scale = self._reference_side / (size[0] * size[1]) ** 0.5
        return tuple(max(multiple, round(scale * length / multiple) * multiple) for length in size)

    def start_reference(
        self, size: Size, seeds: jax.Array, prompts: Prompts, empty: Prompts, noise: jax.Array | None, **static: Any
    ) -> tuple[SamplerState, Prompts]:
        """`ReferenceStage.start` for seeds uint32 `(B,)` and videos of `size` pixels; static: sampler and passes."""
        latents = self.reference_latent_size(size)
        return self.reference.stage.start(stage_keys(seeds, 0), prompts, empty, latents, noise=noise, **static)

    def decode_reference(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents `(B, 1, h, w, C)` -> images uint8 `(B, H, W, 3)`."""
        return to_uint8(self.reference.decode(params, latents))

    def encode_reference(
        self,
        params: Mapping[str, Params],
        images: jax.Array,
        seeds: jax.Array | None = None,
        scalars: tuple[jax.Array, ...] = (),
    ) -> tuple[Any, ...]:
        """What each stage of the cascade takes of the reference images.

        Args:
          params: of the autoencoder and, where there is one, of the image encoder.
          images: uint8 `(B, H, W, 3)`, of the video's size.
          seeds: uint32 `(B,)`. They and `scalars` are read by a model with an image encoder alone.
          scalars: of each stage, from its `scalars`.

        Returns: latents `(B, 1, h, w, C)` for each stage; of a model with an image encoder `ImageInputs`.
        """
        frames, size = to_unit(images)[:, None], images.shape[1:3]
        if self.image_encoder is None:
            sizes = [self.latent_size(stage.resolution, size) for stage in self.cascade]
            return tuple(self.autoencoder.encode(params[VAE], frames, latents) for latents in sizes)
        (numbers,) = scalars  # of Stable Video Diffusion's only stage
        embedding = self.image_encoder.encode(params[IMAGE_ENCODER], frames[:, 0])
        draw = jax.vmap(lambda key: jax.random.normal(key, frames.shape[1:]))
        noisy = frames + numbers[-1] * draw(stage_keys(seeds, _IMAGE_NOISE))
        latents = self.autoencoder.encode_unscaled(params[VAE], noisy)
        return (ImageInputs(embedding, latents, jnp.broadcast_to(numbers, (len(images), len(numbers)))),)

    # The cascade.

    def start_cascade(
        self,
        number: int,
        seeds: jax.Array,
        context: jax.Array | None,
        null_context: jax.Array | None,
        reference: Any,
        lower: jax.Array | None,
        scalars: jax.Array,
        noise: jax.Array | None,
        **static: Any,
    ) -> tuple[SamplerState, Conditioning | ImageInputs]:
        """`start` of stage `number`.

        Args:
          seeds: uint32 `(B,)`.
          context, null_context: text states `(B, L, D)` and `(1, L, D)`; None for a model that reads no text.
          reference, scalars: what `encode_reference` gave for this stage, and what its `scalars` gave.
          lower, noise: as in `CascadeInputs` and `LatentDiffusion.start_sampler`.
          **static: sampler and passes.
        """
        stage, inputs = self.cascade[number], reference
        if self.image_encoder is None:
            inputs = CascadeInputs(context, null_context[0], reference, lower, scalars, self.index.fps)
        return stage.start(stage_keys(seeds, number + 1), inputs, self.index.num_frames, noise=noise, **static)

    def noise_shape(self, number: int, batch: int, size: Size) -> tuple[int, ...]:
        """The shape `(B, T, h, w, C)` of the noise that stage `number` starts from."""
        stage = self.cascade[number]
        if self.image_encoder is None:
            latents = self.latent_size(stage.resolution, size)
        else:
            latents = tuple(side // self.autoencoder.network.downsampling for side in size)
        return (batch, self.index.num_frames, *latents, stage.latent_channels)

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


_IMAGE_NOISE = 2**16  # the number under which the noise on a reference image is drawn; stages have small ones


def default_dtype() -> str:
    """The type in which networks compute here unless asked otherwise."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def stage_keys(seeds: jax.Array, stage: int) -> jax.Array:
    """One key an example and stage, `(B,)`, from uint32 seeds `(B,)`."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), stage))(seeds)


def _check_cascade(index: ModelIndex, cascade: tuple[CascadeStage, ...]) -> None:
    """Raise ValueError unless each stage takes the latents that the one below it makes."""
    below = None
    for part, stage in zip(index.cascade, cascade, strict=True):
        if stage.lower_resolution != below:
            raise ValueError(
                f"{index.folder / part} takes latents of side {stage.lower_resolution}, "
                f"but the stage below it in the cascade makes {below}"
            )
        below = stage.resolution
        stage.noise_schedule  # noqa: B018  (worked out here, since it must be no part of a program that is traced)
