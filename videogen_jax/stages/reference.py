"""The reference stage: text to image latents, Stable Diffusion's part in VideoGen (Li et al. 2023, section 3.1)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.guidance import GuidanceScales
from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.stages.latent_diffusion import LatentDiffusion
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, ModelWriter, Params, Spec


class Prompts(NamedTuple):
    """The UNet's conditioning for a batch of prompts.

    Attributes:
      context: text states `(B, L, D)`.
      pooled: pooled text states `(B, P)`; Stable Diffusion XL alone (Podell et al. 2023, section 2.2).
      sizes: `(B, 6)`, in pixels: height and width of the original picture, top and left of the crop, height and width
        of the target; Stable Diffusion XL alone.
    """

    context: jax.Array
    pooled: jax.Array | None = None
    sizes: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class ReferenceStage(LatentDiffusion):
    """Text-to-image latent diffusion. An image is a video of one frame."""

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Initialise the UNet.

        Args:
          batch: `latents` and `context`; `pooled` and `sizes` where the UNet takes them.
        """
        latents, context = batch["latents"][:1], batch["context"][:1].astype(jnp.float32)
        added = {"pooled_text": batch.get("pooled"), "sizes": batch.get("sizes")}
        return {"unet": self.network.init(rng, latents, jnp.zeros((1,)), context, **added)["params"]}

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """Compute the denoising loss.

        Args:
          params: `unet`.
          frozen: `null_context` `(L, D)`, text states of the empty prompt.
          batch: `latents` `(B, 1, h, w, C)`, `context` `(B, L, D)`.
        """
        drop_rng, noise_rng = jax.random.split(rng)
        context = self.drop_text(drop_rng, batch["context"].astype(jnp.float32), frozen["null_context"])
        latents = batch["latents"].astype(jnp.float32)
        return self.denoising_loss(noise_rng, latents, lambda x, t: self.predict(params["unet"], x, t, context))

    # Sampling: `start`, then `step` for each of `step_coeffs`.

    def passes(self, settings: StageSettings) -> tuple[str, ...]:
        """The guidance passes that the settings need; a text scale of 1 needs no "uncond", half of the work."""
        return ("full",) if settings.guidance_scale == 1.0 else ("uncond", "full")

    def scales(self, settings: StageSettings, num_frames: int) -> GuidanceScales:
        """The weight of the text; there is no reference image yet."""
        del num_frames
        return GuidanceScales(np.float32(settings.guidance_scale), np.float32(1.0))

    def start(
        self,
        keys: jax.Array,
        prompts: Prompts,
        empty: Prompts,
        latent_size: tuple[int, int],
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
    ) -> tuple[SamplerState, Prompts]:
        """Make the sampler's state before its first step, and the conditioning of all steps.

        Args:
          keys: `(B,)`, one an image.
          prompts: the prompts.
          empty: the empty prompt, B times or once.
          latent_size: (h, w) of the latents; static.
          sampler, passes: static.
          noise: as in `start_sampler`.
        """
        conditioning = prompts
        if "uncond" in passes:
            conditioning = jax.tree.map(lambda e, p: jnp.concatenate([jnp.broadcast_to(e, p.shape), p]), empty, prompts)
        shape = (prompts.context.shape[0], 1, *latent_size, self.network.out_channels)
        return self.start_sampler(sampler, keys, shape, noise), conditioning

    def outputs(self, params: Params, x_t: jax.Array, t: jax.Array, conditioning: Prompts) -> jax.Array:
        added = {"pooled_text": conditioning.pooled, "sizes": conditioning.sizes}
        return self.predict(params, x_t, t, conditioning.context, **added)

    def sample_latents(
        self,
        params: Params,
        keys: jax.Array,
        prompts: Prompts,
        empty: Prompts,
        latent_size: tuple[int, int],
        settings: StageSettings,
    ) -> jax.Array:
        """Sample image latents `(B, 1, h, w, C)` of unit variance, all steps in one program.

        Args:
          params: the UNet's parameters.
          keys, prompts, empty, latent_size: as in `start`.
          settings: static.
        """
        static = {"sampler": settings.sampler, "passes": self.passes(settings)}
        state, conditioning = self.start(keys, prompts, empty, latent_size, **static)
        return self.run_steps(params, state, conditioning, settings, num_frames=1)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        """Sample the images of a training batch's prompts: `drawn` beside `truth`, latents `(B, 1, h, w, C)`."""
        context = batch["context"].astype(jnp.float32)
        keys = jax.random.split(rng, context.shape[0])
        prompts, empty = Prompts(context), Prompts(frozen["null_context"][None])
        latent_size = batch["latents"].shape[2:4]
        drawn = self.sample_latents(params["unet"], keys, prompts, empty, latent_size, self.preview_settings)
        return {"truth": batch["latents"].astype(jnp.float32), "drawn": drawn}

    def parts(self) -> dict[str, tuple[str, dict]]:
        """See `Stage.parts`."""
        return {"unet": ("unet", {"_class_name": "ReferenceStage", "unet": self.unet, **self.diffusion_config()})}

    @property
    def name(self) -> str:
        return "reference"

    def input_spec(self, sizes: InputSizes) -> Spec:
        latents = (1, sizes.resolution, sizes.resolution, self.network.in_channels)
        return {
            "latents": jax.ShapeDtypeStruct(latents, jnp.float16),
            "context": jax.ShapeDtypeStruct((sizes.text_length, self.network.cross_attention_dim), jnp.float16),
        }

    def export(self, params: Params, writer: ModelWriter) -> None:
        super().export(params, writer)
        writer.save_scheduler(self)
