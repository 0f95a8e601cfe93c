"""The reference stage: text to image latents, Stable Diffusion's part in VideoGen (Li et al. 2023, section 3.1)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.guidance import classifier_free
from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.stages.latent_diffusion import LatentDiffusion, repeat_batch
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, ModelWriter, Params, Spec


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

    def start(
        self,
        rng: jax.Array,
        prompts: Prompts,
        empty: Prompts,
        resolution: tuple[int, int],
        sampler: str = "dpmpp_2m",
        guided: bool = True,
    ) -> tuple[SamplerState, Prompts]:
        """The sampler's state before its first step, and what the UNet is told in every step.

        Args:
          rng: `(B,)` keys, one an image.
          prompts: the prompts.
          empty: the empty prompt, B times or once.
          resolution: (h, w) of the latents.
          sampler: static.
          guided: False, static, leaves out what guidance needs, for a scale of 1: half of the work.
        """
        told = prompts
        if guided:
            told = jax.tree.map(lambda e, p: jnp.concatenate([jnp.broadcast_to(e, p.shape), p]), empty, prompts)
        shape = (prompts.context.shape[0], 1, *resolution, self.network.out_channels)
        return self.start_sampler(sampler, rng, shape), told

    def step(
        self,
        params: Params,
        state: SamplerState,
        told: Prompts,
        row: Mapping[str, jax.Array],
        guidance_scale: jax.Array | float,
        sampler: str = "dpmpp_2m",
    ) -> SamplerState:
        """One step of the sampler, by a row of its table; `state` and `told` as `start` gives them.

        In the end `state.x` are image latents `(B, 1, h, w, C)` of unit variance.

        Args:
          params: the UNet's parameters.
          guidance_scale: weight of the text, where `start` was guided; may be traced.
        """
        branches = told.context.shape[0] // state.x.shape[0]

        def denoise(x, t):
            x, t = repeat_batch(x, branches), repeat_batch(t, branches)
            out = self.predict(params, x, t, told.context, pooled_text=told.pooled, sizes=told.sizes)
            return out if branches == 1 else classifier_free(*jnp.split(out, branches), guidance_scale)

        return self.sampler(sampler).step(denoise, state, row)

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
    ) -> jax.Array:
        """Image latents `(B, 1, h, w, C)` of unit variance: `start` and `num_steps` (static) times `step`."""
        state, told = self.start(rng, prompts, empty, resolution, sampler, guided)
        step = functools.partial(self.step, params, told=told, guidance_scale=guidance_scale, sampler=sampler)
        return self.run_sampler(sampler, num_steps, state, lambda state, row: step(state, row=row)).x

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        context = batch["context"].astype(jnp.float32)
        keys = jax.random.split(rng, context.shape[0])
        prompts, empty = Prompts(context), Prompts(frozen["null_context"][None])
        drawn = self.sample_latents(params["unet"], keys, prompts, empty, 3.0, batch["latents"].shape[2:4], 20)
        return {"truth": batch["latents"].astype(jnp.float32), "drawn": drawn}

    def parts(self) -> dict[str, tuple[str, dict]]:
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
