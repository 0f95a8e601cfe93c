"""Image to video by Stable Video Diffusion (Blattmann et al. 2023, arXiv 2311.15127): a public cascade of one stage.

The reference image enters twice: its latents are joined to the noisy latents of every frame, and its CLIP embedding is
the one token that cross-attention reads. There is no text. Three numbers are embedded beside the timestep: frames a
second less one, the motion bucket, and how much noise the reference image was given.

Shapes: B videos, T frames, latents of h x w with C channels; CLIP embeddings of D features; P guidance passes.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.guidance import GuidanceScales
from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.models.unet import NUM_ADDED_NUMBERS
from videogen_jax.stages.latent_diffusion import repeat_batch
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Batch, InputSizes, Params, Spec
from videogen_jax.stages.video_sampling import Encoders, VideoSampling


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
class ImageToVideoStage(VideoSampling):
    """Stable Video Diffusion's UNet with its sampling.

    Its schedule is continuous (`schedules.KarrasSchedule`), its prediction the velocity.

    Attributes:
      resolution: of the shorter side of the latents of 576x1024 pixels.
    """

    resolution: int = 72

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
