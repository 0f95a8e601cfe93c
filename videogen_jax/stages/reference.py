"""The reference stage: text to image latents, Stable Diffusion's part in VideoGen (Li et al. 2023, section 3.1)."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.guidance import classifier_free
from videogen_jax.stages.latent_diffusion import LatentDiffusion, repeat_batch
from videogen_jax.stages.stage import Batch, Metrics, Params


class Prompts(NamedTuple):
    """What the UNet is told of a batch of prompts.

    Attributes:
      context: text states `(B, L, D)`.
      pooled: `(B, P)`, and
      sizes: `(B, 6)`, for Stable Diffusion XL alone (Podell et al. 2023, section 2.2): height and width of the original
        picture, top and left of the crop, height and width that are aimed at, in pixels.
    """

    context: jax.Array
    pooled: jax.Array | None = None
    sizes: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class ReferenceStage(LatentDiffusion):
    """Text-to-image latent diffusion. An image is a video of one frame."""

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """batch: `latents` and `context`; `pooled` and `sizes` where the UNet takes them."""
        latents, context = batch["latents"][:1], batch["context"][:1].astype(jnp.float32)
        added = {"pooled_text": batch.get("pooled"), "sizes": batch.get("sizes")}
        return {"unet": self.network.init(rng, latents, jnp.zeros((1,)), context, **added)["params"]}

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
        prompts: Prompts,
        empty: Prompts,
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
          prompts: the prompts.
          empty: the empty prompt, B times or once.
          guidance_scale: 1 is no guidance; may be traced.
          resolution: (h, w) of the latents.
          num_steps, sampler: static.
          guided: False, static, leaves out what guidance needs, for a scale of 1: half of the work.
        """
        batch, told = prompts.context.shape[0], prompts
        if guided:
            told = jax.tree.map(lambda e, p: jnp.concatenate([jnp.broadcast_to(e, p.shape), p]), empty, prompts)

        def predict(x, t):
            return self.predict(params, x, t, told.context, pooled_text=told.pooled, sizes=told.sizes)

        def denoise(x, t):
            if not guided:
                return predict(x, t)
            out = predict(repeat_batch(x, 2), repeat_batch(t, 2))
            return classifier_free(out[:batch], out[batch:], guidance_scale)

        shape = (batch, 1, *resolution, self.network.out_channels)
        return self.run_sampler(denoise, rng, shape, num_steps, sampler, on_step)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        context = batch["context"].astype(jnp.float32)
        keys = jax.random.split(rng, context.shape[0])
        prompts, empty = Prompts(context), Prompts(frozen["null_context"][None])
        drawn = self.sample_latents(params["unet"], keys, prompts, empty, 3.0, batch["latents"].shape[2:4], 20)
        return {"truth": batch["latents"].astype(jnp.float32), "drawn": drawn}

    def parts(self) -> dict[str, tuple[str, dict]]:
        return {"unet": ("unet", {"_class_name": "ReferenceStage", "unet": self.unet, **self.diffusion_config()})}
