"""A VideoGen model, loaded: its parts, their parameters, and the pure functions that sampling compiles.

A model on disk is a folder in diffusers' style: `model_index.json` and a folder for each part.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.runtime.arrays import to_uint8, to_unit
from videogen_jax.runtime.pillow_resize import apply_weights, pillow_weights
from videogen_jax.sampling.loading import load_parts
from videogen_jax.sampling.request import Size
from videogen_jax.sampling.source import ModelSource
from videogen_jax.sampling.text_to_image import TextToImage
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.stage import Params
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.stages.video_sampling import Encoders, VideoSampling
from videogen_jax.weights.fingerprint import model_fingerprint
from videogen_jax.weights.model_index import IMAGE_ENCODER, VAE, ModelIndex
from videogen_jax.weights.parts import TextPart
from videogen_jax.weights.public_parts import ImagePart


@dataclasses.dataclass(eq=False, repr=False)
class VideoGenModel:
    """The parts of a model. Made by `load`.

    The methods that take parameters are pure functions of their arrays, to be traced; `self` is a constant in them.

    Attributes:
      index: what the model folder says of itself.
      name: what recipes call the model: the folder or hub id by which it can be found again.
      components: see `ModelSource`.
      text, autoencoder, reference, cascade, temporal, decoder, params, image_encoder: see `loading.Parts`.
      dtype: in which the networks compute.
    """

    index: ModelIndex
    name: str
    text: TextPart | None
    autoencoder: FrozenAutoencoder
    reference: TextToImage | None
    cascade: tuple[VideoSampling, ...]
    temporal: TemporalStage | None
    decoder: DecoderStage | None
    params: Mapping[str, Params]
    image_encoder: ImagePart | None = None
    dtype: str = "float32"
    components: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
        dtype = dtype or default_dtype()
        parts = load_parts(source.index, dtype)
        for stage in parts.cascade:
            stage.noise_schedule  # noqa: B018  (worked out here: it must be no part of a program that is traced)
        return cls(source.index, source.name, dtype=dtype, components=source.components, **parts._asdict())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, cascade={self.index.cascade}, dtype={self.dtype!r})"

    @property
    def resolution(self) -> int:
        """Side in pixels of the frames that the model was trained on."""
        return self.index.resolution

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, by which a recipe recognises the model: see `model_fingerprint`."""
        return model_fingerprint(self.index.folders)

    def latent_size(self, side: int, size: Size) -> Size:
        """(h, w) of latents, of side `side` where the model was trained, in a video of `size` pixels."""
        return size[0] * side // self.resolution, size[1] * side // self.resolution

    def stage_size(self, stage: VideoSampling, size: Size) -> Size:
        """(h, w) of the latents of a stage of the cascade in a video of `size` pixels.

        Rounded to what its UNet can halve, where the stages of public models have not the same shape.
        """
        multiple = 2 ** (len(stage.network.block_out_channels) - 1)
        scale = stage.resolution / (self.resolution * multiple)
        return tuple(max(1, round(length * scale)) * multiple for length in size)

    # Text.

    @property
    def shares_text(self) -> bool:
        """Whether the reference images are drawn from the same text states as the cascade's latents."""
        return self.reference is None or self.reference.texts[0].network is self.text.network

    def encode_text(self, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Token ids `(B + 1, L)`, the empty prompt's last -> text states `(B, L, D)` and `(1, L, D)`."""
        states = self.text.encode(params, tokens)
        return states[:-1], states[-1:]

    def encode_reference_text(
        self, size: Size, params: Params, tokens: tuple[jax.Array, ...]
    ) -> tuple[Prompts, Prompts]:
        """The conditioning of a reference model with text encoders of its own; see `TextToImage.encode`.

        Stable Diffusion XL is conditioned on the picture's size: here that of the pictures that it was trained on, or
        where its UNet makes the video, that of the video, `size` pixels.
        """
        latents = (self._reference_side,) * 2
        if self.index.reads_text and self.text is None:
            latents = self.stage_size(self.cascade[-1], size)
        return self.reference.encode(params, tokens, latents)

    # The reference image.

    @property
    def _reference_side(self) -> int:
        """Side of the reference latents when they are drawn, for videos of the side that the model was trained on."""
        return self.reference.sample_size or (self.cascade[-1].resolution if self.index.scales_reference else 64)

    def reference_latent_size(self, size: Size) -> Size:
        """(h, w) of the reference latents when they are drawn, for videos of `size` pixels.

        Where the video's size says nothing of the text-to-image model's, as many pixels as that model was trained for,
        in the video's shape.
        """
        if self.index.scales_reference:
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
          seeds: uint32 `(B,)`, and
          scalars: of each stage, from its `scalars`; both for stages that add noise to the images.

        Returns: of each stage, what its `encode_reference` gives: of the cascade latents `(B, 1, h, w, C)`.
        """
        encoders = Encoders(self.autoencoder, params[VAE], self.image_encoder, params.get(IMAGE_ENCODER))
        keys = None if seeds is None else stage_keys(seeds, _IMAGE_NOISE)
        frames, scalars = to_unit(images)[:, None], scalars or (None,) * len(self.cascade)
        return tuple(
            stage.encode_reference(encoders, frames, self.stage_size(stage, images.shape[1:3]), keys, own)
            for stage, own in zip(self.cascade, scalars, strict=True)
        )

    # The cascade.

    def start_cascade(
        self,
        number: int,
        seeds: jax.Array,
        prompts: Prompts | None,
        empty: Prompts | None,
        reference: Any,
        lower: jax.Array | None,
        scalars: jax.Array,
        noise: jax.Array | None,
        *,
        num_frames: int,
        size: Size,
        **static: Any,
    ) -> tuple[SamplerState, Any]:
        """`start` of stage `number`.

        Args:
          seeds: uint32 `(B,)`.
          prompts, empty, lower: as in `VideoSampling.inputs`.
          reference, scalars: what `encode_reference` gave for this stage, and what its `scalars` gave.
          noise: as in `LatentSampling.start_sampler`.
          num_frames: base frames.
          size: (height, width) of the video in pixels.
          **static: sampler and passes.
        """
        stage = self.cascade[number]
        inputs = stage.inputs(prompts, empty, reference, lower, scalars, self.index.fps)
        static |= {"noise": noise, "size": self.stage_size(stage, size)}
        return stage.start(stage_keys(seeds, number + 1), inputs, num_frames, **static)

    def noise_shape(self, number: int, batch: int, num_frames: int, size: Size) -> tuple[int, ...]:
        """The shape `(B, T, h, w, C)` of the noise that stage `number` starts from, for T base frames."""
        stage = self.cascade[number]
        return (batch, num_frames, *self.stage_size(stage, size), stage.latent_channels)

    def enlarge(self, number: int, size: Size, params: Params, latents: jax.Array) -> jax.Array:
        """What stage `number` takes of the video of the stage below, with `encodes_lower`.

        The frames are enlarged as 8-bit images, by Pillow's bicubic filter.

        Args:
          size: (height, width) of the video in pixels.
          params: of the autoencoder.
          latents: `(B, T, h', w', C)`.

        Returns: `(B, T, h, w, C)` of unit variance, of the stage's size.
        """
        size = tuple(
            side * self.autoencoder.network.downsampling for side in self.stage_size(self.cascade[number], size)
        )

        def one_frame(latents: jax.Array) -> jax.Array:  # (B, h', w', C)
            pixels = to_uint8(self.autoencoder.decode(params, latents)).astype(jnp.float32)
            weights = (pillow_weights(n, m, "bicubic") for n, m in zip(pixels.shape[1:3], size, strict=True))
            return self.autoencoder.encode(params, to_unit(apply_weights(pixels, *weights)))

        return jnp.moveaxis(jax.lax.map(one_frame, jnp.moveaxis(latents, 1, 0)), 0, 1)

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
