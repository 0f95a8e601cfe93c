"""Image to video by Stable Video Diffusion (Blattmann et al. 2023, arXiv 2311.15127): a public cascade of one stage.

The reference image enters twice: its latents are joined to the noisy latents of every frame, and its CLIP embedding is
the one token that cross-attention reads. There is no text. Three numbers are embedded beside the timestep: frames a
second less one, the motion bucket, and how much noise the reference image was given.

Shapes: B videos, T frames, latents of h x w with C channels; CLIP embeddings of D features; P guidance passes.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.guidance import GuidanceScales, guide
from videogen_jax.diffusion.samplers import SamplerState, sample_loop
from videogen_jax.models.unet import NUM_ADDED_NUMBERS
from videogen_jax.stages.latent_diffusion import LatentSampling, repeat_batch
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Batch, InputSizes, Params, Spec


class ImageInputs(NamedTuple):
    """What a batch of videos is sampled from.

    Attributes:
      embedding: CLIP embeddings of the reference images `(B, D)`.
      latents: their latents `(B, 1, h, w, C)`: the posterior's mean as the autoencoder gives it, not scaled to unit
        variance, of the images with noise of `noise_aug_strength`; the video has their size.
      scalars: `(B, 3)`: frames a second less one, motion bucket, noise_aug_strength.
    """

    embedding: jax.Array
    latents: jax.Array
    scalars: jax.Array


@dataclasses.dataclass(frozen=True)
class ImageToVideoStage(LatentSampling):
    """Stable Video Diffusion's UNet with its sampling.

    Its schedule is continuous (`schedules.KarrasSchedule`), its prediction the velocity.

    Attributes:
      latent_channels: C; the UNet's input has twice as many.
    """

    latent_channels: int = 4

    @property
    def name(self) -> str:
        return "video"

    # Sampling: `start`, then `step` for each of `step_coeffs`.

    def passes(self, settings: StageSettings) -> tuple[str, ...]:
        """The guidance passes: without the reference image and with it; with it alone where no frame is guided."""
        guided = any(scale != 1.0 for scale in (settings.guidance_scale, settings.min_guidance_scale))
        return ("uncond", "full") if guided else ("full",)

    def scales(self, settings: StageSettings, num_frames: int) -> GuidanceScales:
        """The weight of the reference image in each frame, `(1, T)`, rising linearly over the video.

        One weight for all frames is too much for the first ones, or too little for the last (Blattmann et al. 2023).
        """
        low, high = settings.min_guidance_scale, settings.guidance_scale
        return GuidanceScales(np.linspace(low, high, num_frames, dtype=np.float32)[None], np.float32(1.0))

    def scalars(self, settings: StageSettings) -> np.ndarray:
        """The numbers that the UNet takes, `(3,)` float32; it was trained with frames a second less one."""
        values = (settings.conditioning_fps - 1.0, settings.motion_bucket_id, settings.noise_aug_strength)
        return np.asarray(values, np.float32)

    def start(
        self,
        keys: jax.Array,
        inputs: ImageInputs,
        num_frames: int,
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
    ) -> tuple[SamplerState, ImageInputs]:
        """Make the sampler's state before its first step, and the conditioning of all steps, N = P * B.

        Args:
          keys: `(B,)`, one a video.
          inputs: what the videos are sampled from.
          num_frames: T; static.
          sampler, passes: static.
          noise: as in `start_sampler`.
        """
        shape = (inputs.latents.shape[0], num_frames, *inputs.latents.shape[2:])
        shown = jnp.repeat(jnp.array([float(name == "full") for name in passes]), shape[0])  # (N,)
        conditioning = ImageInputs(
            embedding=repeat_batch(inputs.embedding, len(passes)) * shown[:, None],
            latents=repeat_batch(inputs.latents, len(passes)) * shown[:, None, None, None, None],
            scalars=repeat_batch(inputs.scalars, len(passes)),
        )
        return self.start_sampler(sampler, keys, shape, noise), conditioning

    def step(
        self,
        params: Params,
        state: SamplerState,
        conditioning: ImageInputs,
        coeffs: Mapping[str, jax.Array],
        scales: GuidanceScales,
        sampler: str,
        passes: tuple[str, ...],
    ) -> SamplerState:
        """Take one sampling step.

        Args:
          params: the UNet's parameters.
          state, conditioning: from `start`, or the state from the step before.
          coeffs: one of `step_coeffs`; may be traced.
          scales: from `scales`; may be traced.
          sampler, passes: as in `start`.
        """

        def denoise(x_t: jax.Array, t: jax.Array) -> jax.Array:
            x_t, t = repeat_batch(x_t, len(passes)), repeat_batch(t, len(passes))  # (N, ...)
            x = self.unet_input(x_t, conditioning.latents)
            tokens = conditioning.embedding[:, None]  # (N, 1, D)
            outputs = self.predict(params, x, t, tokens, added_numbers=conditioning.scalars)
            return guide(outputs, passes, scales)  # (B, T, h, w, C)

        return self.sampler(sampler).step(denoise, state, coeffs)

    def unet_input(self, x: jax.Array, latents: jax.Array) -> jax.Array:
        """Noisy latents `(B, T, h, w, C)` and those of the image `(B, 1, h, w, C)` -> `(B, T, h, w, 2 C)`."""
        return jnp.concatenate([x, jnp.broadcast_to(latents, x.shape)], axis=-1)

    def finish(self, x: jax.Array, inputs: ImageInputs) -> jax.Array:
        """The video latents `(B, T, h, w, C)` of unit variance, from `x` of the last state."""
        del inputs
        return x

    def sample_latents(
        self, params: Params, keys: jax.Array, inputs: ImageInputs, num_frames: int, settings: StageSettings
    ) -> jax.Array:
        """Sample video latents `(B, T, h, w, C)` of unit variance, all steps in one program.

        Args:
          params: the UNet's parameters.
          keys, inputs: as in `start`.
          num_frames: T; static.
          settings: static.
        """
        sampler, passes = settings.sampler, self.passes(settings)
        scales = self.scales(settings, num_frames)
        state, conditioning = self.start(keys, inputs, num_frames, sampler, passes)

        def step(state: SamplerState, coeffs: Mapping[str, jax.Array]) -> SamplerState:
            return self.step(params, state, conditioning, coeffs, scales, sampler, passes)

        return sample_loop(step, state, self.sampler(sampler).coefficients(settings.steps)).x

    # The stage as a part of a model.

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Initialise the UNet for the shapes of `latents`, `embedding` and `scalars` in `batch`."""
        x = jnp.zeros((1, *batch["latents"].shape[1:-1], self.network.in_channels))
        embedding, scalars = (batch[name][:1].astype(jnp.float32) for name in ("embedding", "scalars"))
        inputs = (x, jnp.zeros((1,)), embedding[:, None])
        return {self.name: self.network.init(rng, *inputs, added_numbers=scalars)["params"]}

    def input_spec(self, sizes: InputSizes) -> Spec:
        side, channels = sizes.resolution, self.latent_channels
        return {
            "latents": jax.ShapeDtypeStruct((sizes.num_frames, side, side, channels), jnp.float16),
            "embedding": jax.ShapeDtypeStruct((self.network.cross_attention_dim,), jnp.float16),
            "scalars": jax.ShapeDtypeStruct((NUM_ADDED_NUMBERS,), jnp.float32),
        }
