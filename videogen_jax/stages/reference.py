"""The reference stage: text to image latents, Stable Diffusion's part in VideoGen (Li et al. 2023, section 3.1)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.guidance import classifier_free
from videogen_jax.stages.latent_diffusion import LatentDiffusion, repeat_batch
from videogen_jax.stages.stage import Batch, Metrics, Params


@dataclasses.dataclass(frozen=True)
class ReferenceStage(LatentDiffusion):
    """Text-to-image latent diffusion. An image is a video of one frame."""

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        latents, context = batch["latents"], batch["context"]
        return {"unet": self.network.init(rng, latents[:1], jnp.zeros((1,)), context[:1].astype(jnp.float32))["params"]}

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """batch: `latents` `(B, 1, h, w, C)`, `context` `(B, L, D)`; frozen: `null_context` `(L, D)`."""
        drop_rng, noise_rng = jax.random.split(rng)
        context = self.drop_text(drop_rng, batch["context"].astype(jnp.float32), frozen["null_context"])
        latents = batch["latents"].astype(jnp.float32)
        return self.denoising_loss(noise_rng, latents, lambda x, t: self.predict(params["unet"], x, t, context))

    def sample_latents(
        self,
        params: Params,
        rng: jax.Array,
        context: jax.Array,
        null_context: jax.Array,
        guidance_scale: jax.Array | float,
        resolution: tuple[int, int],
        num_steps: int,
        sampler: str = "dpmpp_2m",
        guided: bool = True,
        on_step: Callable[[int], None] | None = None,
    ) -> jax.Array:
        """Image latents `(B, 1, h, w, C)` of unit variance.

        Args:
          params: the UNet's parameters.
          rng: `(B,)` keys, one an image.
          context, null_context: text states of the prompts `(B, L, D)` and of the empty prompt `(L, D)`.
          guidance_scale: 1 is no guidance; may be traced.
          resolution: (h, w) of the latents.
          num_steps, sampler: static.
          guided: False, static, leaves out what guidance needs, for a scale of 1: half of the work.
        """
        batch = context.shape[0]
        both = jnp.concatenate([jnp.broadcast_to(null_context, context.shape), context])

        def denoise(x, t):
            if not guided:
                return self.predict(params, x, t, context)
            out = self.predict(params, repeat_batch(x, 2), repeat_batch(t, 2), both)
            return classifier_free(out[:batch], out[batch:], guidance_scale)

        shape = (batch, 1, *resolution, self.network.out_channels)
        return self.run_sampler(denoise, rng, shape, num_steps, sampler, on_step)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        context = batch["context"].astype(jnp.float32)
        keys = jax.random.split(rng, context.shape[0])
        size = batch["latents"].shape[2:4]
        drawn = self.sample_latents(params["unet"], keys, context, frozen["null_context"], 3.0, size, 20)
        return {"truth": batch["latents"].astype(jnp.float32), "drawn": drawn}

    def parts(self) -> dict[str, tuple[str, dict]]:
        return {"unet": ("unet", {"_class_name": "ReferenceStage", "unet": self.unet, **self.diffusion_config()})}
