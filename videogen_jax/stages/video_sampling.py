"""What the stages that make videos have in common: how they are called from a prompt's text and a reference image.

A stage of the cascade trained here, and the network of a public video model, are both sampled by `encode_reference`,
`inputs`, `start`, `step` for each of `step_coeffs`, and `finish`.

Shapes: B videos, T frames, latents of h x w with C channels.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import numpy as np

from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.latent_diffusion import LatentSampling
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Params


class ImageEncoder(Protocol):
    """A CLIP image encoder with the preparation of images that a model was trained with."""

    def encode(self, params: Params, images: jax.Array) -> jax.Array:
        """Embed images `(B, H, W, 3)` in [-1, 1] as `(B, D)` float32."""


class Encoders(NamedTuple):
    """What a stage can make of the reference images.

    Attributes:
      autoencoder: gives their latents.
      params: of the autoencoder.
      image: gives their embeddings; None for a model without an image encoder.
      image_params: of the image encoder.
    """

    autoencoder: FrozenAutoencoder
    params: Params
    image: ImageEncoder | None = None
    image_params: Params | None = None


@dataclasses.dataclass(frozen=True)
class VideoSampling(LatentSampling):
    """A latent video diffusion model as it is sampled.

    Attributes:
      resolution: side of the latents that it was trained on.
      latent_channels: C.
    """

    resolution: int = 16
    latent_channels: int = 4

    encodes_lower: ClassVar[bool] = False  # takes the frames of the stage below, encoded at its own size

    @property
    def name(self) -> str:
        """Of the stage among those of a model."""
        return "video"

    def encode_reference(
        self, encoders: Encoders, frames: jax.Array, size: tuple[int, int], keys: jax.Array, scalars: jax.Array
    ) -> Any:
        """What the stage takes of the reference images.

        Args:
          encoders: of images.
          frames: the images, `(B, 1, H, W, 3)` in [-1, 1], in the video's shape.
          size: (h, w) of this stage's latents.
          keys: `(B,)`, for stages that add noise to the images.
          scalars: from `scalars`.

        Returns: by default latents `(B, 1, h, w, C)` of unit variance.
        """
        del keys, scalars
        return encoders.autoencoder.encode(encoders.params, frames, size)

    def scalars(self, settings: StageSettings) -> np.ndarray:
        """The numbers of the settings that the network's conditioning depends on."""
        raise NotImplementedError

    def inputs(
        self,
        prompts: Prompts | None,
        empty: Prompts | None,
        reference: Any,
        lower: jax.Array | None,
        scalars: jax.Array,
        fps: float,
    ) -> Any:
        """What `start` takes.

        Args:
          prompts, empty: text states of B prompts, and of the empty one; None for a model that reads no text.
          reference: from `encode_reference`.
          lower: video latents of the stage below `(B, T, h', w', C)`, or None; of this stage's size with
            `encodes_lower`.
          scalars: from `scalars`.
          fps: the model's frames a second.
        """
        raise NotImplementedError

    def start(
        self,
        keys: jax.Array,
        inputs: Any,
        num_frames: int,
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[SamplerState, Any]:
        """Make the sampler's state before its first step, and the conditioning of all steps.

        Args:
          keys: `(B,)`, one a video.
          inputs: what the videos are sampled from.
          num_frames: T; static.
          sampler, passes: static.
          noise: as in `start_sampler`.
          size: (h, w) of the latents, static, for a stage that reads no reference; others have the reference's.

        Raises:
          ValueError: an input that the UNet takes is None.
        """
        raise NotImplementedError

    def finish(self, x: jax.Array, reference: Any) -> jax.Array:
        """The video latents `(B, T, h, w, C)` of unit variance, from `x` of the last state and `encode_reference`."""
        del reference
        return x

    def sample_latents(
        self,
        params: Params,
        keys: jax.Array,
        inputs: Any,
        num_frames: int,
        settings: StageSettings,
        size: tuple[int, int] | None = None,
    ) -> jax.Array:
        """Sample video latents `(B, T, h, w, C)` of unit variance, all steps in one program.

        Args:
          params: the UNet's parameters.
          keys, inputs, size: as in `start`.
          num_frames: T; static.
          settings: static.
        """
        static = {"sampler": settings.sampler, "passes": self.passes(settings)}
        state, conditioning = self.start(keys, inputs, num_frames, size=size, **static)
        return self.run_steps(params, state, conditioning, settings, num_frames)
