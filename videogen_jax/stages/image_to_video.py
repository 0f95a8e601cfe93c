"""Image to video by Stable Video Diffusion (Blattmann et al. 2023, arXiv 2311.15127): a public cascade of one stage.

The reference image enters twice: its latents are joined to the noisy latents of every frame, and its CLIP embedding is
the one token that cross-attention reads. There is no text. Three numbers are embedded beside the timestep: frames a
second less one, the motion bucket, and how much noise the reference image was given.

Shapes: B videos, T frames, latents of h x w with C channels; CLIP embeddings of D features; P guidance passes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.guidance import GuidanceScales
from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.diffusion.schedules import append_axes
from videogen_jax.models.unet import NUM_ADDED_NUMBERS
from videogen_jax.stages.latent_diffusion import repeat_batch
from videogen_jax.stages.public_video import PublicVideoStage, zero_dropped
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, ModelReader, Params, Spec
from videogen_jax.stages.video_sampling import Encoders


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
class ImageToVideoStage(PublicVideoStage):
    """Stable Video Diffusion's UNet with its sampling and its training.

    Its schedule is continuous (`schedules.KarrasSchedule`), its prediction the velocity.

    Attributes:
      resolution: of the shorter side of the latents of 576x1024 pixels.
      log_sigma: mean and standard deviation of the logarithm of the noise level in training.
      log_noise_aug: those of the noise that the reference image is given.
      reference_dropout: share of the training examples without the image, in its latents and its embedding, 0 to 1.
      motion_bucket_id: of the training clips.
    """

    resolution: int = 72
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"name": "karras"})
    log_sigma: tuple[float, float] = (0.7, 1.6)
    log_noise_aug: tuple[float, float] = (-3.0, 0.5)
    reference_dropout: float = 0.1
    motion_bucket_id: int = 127
    preview_guidance_scale: float = 3.0

    preview_sampler: ClassVar[str] = "euler"
    kept_parts: ClassVar[tuple[str, ...]] = ("vae", "image_encoder", "feature_extractor")

    @property
    def preview_settings(self) -> StageSettings:
        """How `sample` samples during training."""
        return dataclasses.replace(super().preview_settings, min_guidance_scale=1.0)

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

    def encode_reference(
        self, encoders: Encoders, frames: jax.Array, size: tuple[int, int], keys: jax.Array, scalars: jax.Array
    ) -> ImageInputs:
        """The images' embeddings, and their latents with the noise that the settings ask for."""
        del size  # the latents have the video's size
        embedding = encoders.image.encode(encoders.image_params, frames[:, 0])
        noise = jax.vmap(lambda key: jax.random.normal(key, frames.shape[1:]))(keys)
        latents = encoders.autoencoder.encode_unscaled(encoders.params, frames + scalars[-1] * noise)
        return ImageInputs(embedding, latents, jnp.broadcast_to(scalars, (len(frames), len(scalars))))

    def inputs(
        self,
        prompts: Prompts | None,
        empty: Prompts | None,
        reference: ImageInputs,
        lower: jax.Array | None,
        scalars: jax.Array,
        fps: float,
    ) -> ImageInputs:
        del prompts, empty, lower, scalars, fps  # the reference image says it all
        return reference

    def start(
        self,
        keys: jax.Array,
        inputs: ImageInputs,
        num_frames: int,
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[SamplerState, ImageInputs]:
        """See `VideoSampling`; the conditioning has N = P * B examples."""
        del size  # the image's
        shape = (inputs.latents.shape[0], num_frames, *inputs.latents.shape[2:])
        shown = jnp.repeat(jnp.array([float(name == "full") for name in passes]), shape[0])  # (N,)
        conditioning = ImageInputs(
            embedding=repeat_batch(inputs.embedding, len(passes)) * shown[:, None],
            latents=repeat_batch(inputs.latents, len(passes)) * shown[:, None, None, None, None],
            scalars=repeat_batch(inputs.scalars, len(passes)),
        )
        return self.start_sampler(sampler, keys, shape, noise), conditioning

    def outputs(self, params: Params, x_t: jax.Array, t: jax.Array, conditioning: ImageInputs) -> jax.Array:
        x = self.unet_input(x_t, conditioning.latents)
        tokens = conditioning.embedding[:, None]  # (N, 1, D)
        return self.predict(params, x, t, tokens, added_numbers=conditioning.scalars)

    def unet_input(self, x: jax.Array, latents: jax.Array) -> jax.Array:
        """Noisy latents `(B, T, h, w, C)` and those of the image `(B, 1, h, w, C)` -> `(B, T, h, w, 2 C)`."""
        return jnp.concatenate([x, jnp.broadcast_to(latents, x.shape)], axis=-1)

    # Training.

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Initialise the UNet for the shapes of `latents` and `embedding` in `batch`."""
        x = jnp.zeros((1, *batch["latents"].shape[1:-1], self.network.in_channels))
        inputs = (x, jnp.zeros((1,)), batch["embedding"][:1, None].astype(jnp.float32))
        return {self.name: self.network.init(rng, *inputs, added_numbers=jnp.zeros((1, NUM_ADDED_NUMBERS)))["params"]}

    def input_spec(self, sizes: InputSizes) -> Spec:
        return self.spec(sizes, "embedding", "image_latents", "noise_aug_strength", "fps")

    def frozen_spec(self, inputs: Spec) -> Params:
        del inputs
        return {}

    def load_frozen(self, model: ModelReader) -> Params:
        del model
        return {}

    def noise_strength(self, rng: jax.Array, batch_size: int) -> jax.Array:
        """How much noise the reference images of a training batch are given, `(B,)`."""
        mean, deviation = self.log_noise_aug
        return jnp.exp(mean + deviation * jax.random.normal(rng, (batch_size,)))

    def training_inputs(self, batch: Batch, frozen: Params) -> ImageInputs:
        del frozen
        strength = batch["noise_aug_strength"]
        numbers = (batch["fps"] - 1.0, jnp.full_like(strength, self.motion_bucket_id), strength)
        return ImageInputs(batch["embedding"], batch["image_latents"], jnp.stack(numbers, axis=1))

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """Compute the loss of Karras et al. 2022 (eq. 2 and 8), with the image dropped at random.

        The preconditioning that Blattmann et al. 2023 (appendix D) chose makes the network predict the velocity, and
        their weight (1 + sigma^2) / sigma^2 makes the loss its mean squared error.

        Args:
          params: the UNet's parameters, by `name`.
          frozen: nothing.
          batch: `latents` `(B, T, h, w, C)` of unit variance, `embedding` `(B, D)`, `image_latents` `(B, 1, h, w, C)`
            not scaled, `noise_aug_strength` and `fps` `(B,)`.
        """
        drop_rng, sigma_rng, noise_rng = jax.random.split(rng, 3)
        batch = jax.tree.map(lambda x: x.astype(jnp.float32), dict(batch))
        latents = batch["latents"]
        dropped = jax.random.bernoulli(drop_rng, self.reference_dropout, (len(latents),))
        embedding, image, numbers = self.training_inputs(batch, frozen)
        conditioning = ImageInputs(zero_dropped(embedding, dropped), zero_dropped(image, dropped), numbers)
        mean, deviation = self.log_sigma
        sigma = jnp.exp(mean + deviation * jax.random.normal(sigma_rng, (len(latents),)))
        noise = jax.random.normal(noise_rng, latents.shape)
        errors = self.velocity_errors(params[self.name], latents, noise, sigma, conditioning)
        loss = errors.mean()
        return loss, {"mse": loss}

    def velocity_errors(
        self, params: Params, latents: jax.Array, noise: jax.Array, sigma: jax.Array, conditioning: ImageInputs
    ) -> jax.Array:
        """The squared error of the predicted velocity at noise levels `sigma` `(B,)`, `(B, T, h, w, C)`."""
        level = append_axes(sigma, latents.ndim)
        alpha = 1.0 / jnp.sqrt(1.0 + level**2)
        x_t = alpha * (latents + level * noise)
        velocity = alpha * (noise - level * latents)
        return (self.outputs(params, x_t, 0.25 * jnp.log(sigma), conditioning) - velocity) ** 2
