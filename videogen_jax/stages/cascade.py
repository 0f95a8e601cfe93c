"""The cascade: latent video diffusion at rising resolutions (Li et al. 2023, section 3.2).

Each stage sees the text, the reference image's latents at its own resolution and, above the first, the video latents
of the stage below, upsampled and noised (noise conditioning augmentation, Ho et al. 2022b).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.augmentation import augment, random_level
from videogen_jax.diffusion.guidance import classifier_free, text_and_reference
from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.runtime.arrays import resize
from videogen_jax.stages.latent_diffusion import LatentDiffusion, repeat_batch
from videogen_jax.stages.stage import Batch, Metrics, Params


class Conditions(NamedTuple):
    """What the UNet of a stage is told in every sampling step; N is the batch, once for each branch of guidance.

    Attributes:
      context: text states `(N, L, D)`.
      reference: latents of the reference image `(N, 1, h, w, C)`.
      keep: `(N,)`, 1 where the reference is shown, 0 where it is dropped.
      lower: the stage below's latents, upsampled and noised `(N, T, h, w, C)`, or None for the first stage.
      scalars: the UNet's `added_conditions`, `(N,)` each.
    """

    context: jax.Array
    reference: jax.Array
    keep: jax.Array
    lower: jax.Array | None
    scalars: dict[str, jax.Array]


BRANCHES = ("neither", "reference", "both")  # what the UNet is told in each: which of the reference and the text


@dataclasses.dataclass(frozen=True)
class CascadeStage(LatentDiffusion):
    """One resolution of the cascade. The UNet's `in_channels` is worked out from the conditions.

    Attributes:
      resolution: side of the latents.
      lower_resolution: side of the stage below's latents, or None for the first stage.
      latent_channels: channels of the latents.
      reference_frames: "all": the reference's latents are joined to every frame; "first": to the first frame, zeros
        to the others; "clean": as "first", and they also stand in the place of that frame's noisy latents, so that the
        first frame is given and the others follow from it; "none": never shown, to learn what it is worth. A mask
        channel marks where they are.
      reference_init: what the input weights of the reference's channels are of those of the noisy latents where a stage
        starts from a 2D UNet. 0 leaves that UNet's output as it is; above, the reference is seen from the first step.
      text: whether the prompt is told; False: always the empty one, in training and in sampling.
      reference_dropout: share of training examples without the reference.
      max_noise_level: highest timestep to which the lower stage's latents are noised in training.
      noise_level: the level at sampling, unless another is asked for.
    """

    # Fields of the UNet that `__post_init__` works out; a config does not offer them.
    derived_fields: ClassVar[Mapping[str, tuple[str, ...]]] = {"unet": ("in_channels", "out_channels", "temporal")}

    resolution: int = 16
    lower_resolution: int | None = None
    latent_channels: int = 4
    reference_frames: str = "all"
    text: bool = True
    reference_init: float = 0.0
    reference_dropout: float = 0.1
    max_noise_level: int = 400
    noise_level: int = 100

    def __post_init__(self):
        super().__post_init__()
        if self.reference_frames not in ("all", "first", "clean", "none"):
            raise ValueError(
                f"config.model.reference_frames is {self.reference_frames!r}; it may be all, first, clean or none"
            )
        if self.lower_resolution is not None and not 0 < self.lower_resolution < self.resolution:
            raise ValueError(
                f"config.model.lower_resolution is {self.lower_resolution}; it must be below {self.resolution}"
            )
        lower = self.lower_resolution is not None
        conditions = tuple(self.unet.get("added_conditions", ()))
        if lower and "noise_level" not in conditions:
            conditions += ("noise_level",)
        widths = {"in_channels": self.latent_channels * (3 if lower else 2) + 1, "out_channels": self.latent_channels}
        object.__setattr__(self, "unet", {**self.unet, **widths, "temporal": True, "added_conditions": conditions})

    @property
    def name(self) -> str:
        """The part's folder in a model."""
        return f"cascade_{self.resolution}"

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        x = jnp.zeros((1, *batch["latents"].shape[1:-1], self.network.in_channels))
        conditions = {name: jnp.zeros((1,)) for name in self.network.added_conditions}
        context = batch["context"][:1].astype(jnp.float32)
        return {self.name: self.network.init(rng, x, jnp.zeros((1,)), context, conditions)["params"]}

    def join(self, x: jax.Array, reference: jax.Array, keep: jax.Array, lower: jax.Array | None) -> jax.Array:
        """The UNet's input: noisy latents, reference, mask, lower latents, on the channel axis.

        Args:
          x: `(B, T, h, w, C)`.
          reference: `(B, 1, h, w, C)`.
          keep: `(B,)`, 1 where the reference is shown, 0 where it is dropped.
          lower: `(B, T, h, w, C)`, upsampled and noised, or None.
        """
        num_frames = x.shape[1]
        if self.reference_frames == "none":
            keep = jnp.zeros_like(keep)
        keep = keep.astype(x.dtype)[:, None, None, None, None]
        shown = jnp.broadcast_to(reference * keep, x.shape)
        mask = jnp.broadcast_to(keep, (*x.shape[:-1], 1))
        if self.reference_frames in ("first", "clean"):
            first = (jnp.arange(num_frames) == 0).astype(x.dtype)[None, :, None, None, None]
            shown, mask = shown * first, mask * first
        if self.reference_frames == "clean":
            x = shown + (1.0 - mask) * x
        return jnp.concatenate([x, shown, mask, *([] if lower is None else [lower])], axis=-1)

    def conditions(self, batch: int, level: jax.Array | None, fps: jax.Array | None) -> dict[str, jax.Array]:
        """The named scalars that this stage's UNet takes; fps is told in units where 10 is one frame a second."""
        known = {"noise_level": level, "fps": None if fps is None else 10.0 * fps}
        out = {}
        for name in self.network.added_conditions:
            if known.get(name) is None:
                raise ValueError(f"stage {self.name} needs the condition {name}")
            out[name] = jnp.broadcast_to(jnp.asarray(known[name], jnp.float32), (batch,))
        return out

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """batch: `latents` `(B, T, h, w, C)`, `reference` `(B, 1, h, w, C)` (the clip's first frame), `context`
        `(B, L, D)`, above the first stage `lower` `(B, T, h', w', C)`, `fps` `(B,)`; frozen: `null_context` `(L, D)`.

        Still images, T = 1, are learnt without a reference.
        """
        text_rng, reference_rng, level_rng, augment_rng, noise_rng = jax.random.split(rng, 5)
        batch = jax.tree.map(lambda x: x.astype(jnp.float32), dict(batch))
        latents, count = batch["latents"], batch["latents"].shape[0]
        null = frozen["null_context"]
        if self.text:
            context = self.drop_text(text_rng, batch["context"], null)
        else:
            context = jnp.broadcast_to(null, batch["context"].shape)
        keep = jax.random.bernoulli(reference_rng, 1.0 - self.reference_dropout, (count,))
        if latents.shape[1] == 1:  # a still image would be given away by its reference
            keep = jnp.zeros_like(keep)
        lower, level = None, None
        if self.lower_resolution is not None:
            level = random_level(level_rng, count, self.max_noise_level)
            lower = augment(augment_rng, resize(batch["lower"], self.resolution), self.noise_schedule, level)
        conditions = self.conditions(count, level, batch.get("fps"))

        def predict(x, t):
            joined = self.join(x, batch["reference"], keep, lower)
            return self.predict(params[self.name], joined, t, context, conditions)

        weights = None
        if self.reference_frames == "clean":  # a frame that is given is not to be learnt
            weights = 1.0 - keep[:, None] * (jnp.arange(latents.shape[1]) == 0)
        return self.denoising_loss(noise_rng, latents, predict, weights)

    def start(
        self,
        rng: jax.Array,
        context: jax.Array,
        null_context: jax.Array,
        reference: jax.Array,
        lower: jax.Array | None,
        num_frames: int,
        sampler: str = "dpmpp_2m",
        noise_level: jax.Array | int | None = None,
        fps: jax.Array | float | None = None,
        branches: tuple[str, ...] = BRANCHES,
    ) -> tuple[SamplerState, Conditions]:
        """The sampler's state before its first step, and what the UNet is told in every step.

        The size of the video is that of the reference.

        Args:
          rng: `(B,)` keys, one a video.
          context, null_context: text states of the prompts `(B, L, D)` and of the empty prompt `(L, D)`.
          reference: latents of the reference image at this resolution `(B, 1, h, w, C)`.
          lower: latents of the stage below `(B, T, h', w', C)`, or None for the first stage.
          num_frames, sampler: static.
          noise_level: timestep to which `lower` is noised; None: the stage's own.
          fps: frame rate, for a UNet that takes it.
          branches: static, those of BRANCHES that guidance needs, each of them a third of the work: all; without
            "neither" where the reference's scale is 1; without "reference" where both scales are the same; "both"
            alone where they are 1.
        """
        batch, size = context.shape[0], reference.shape[2:4]
        keys = jax.vmap(jax.random.split, out_axes=1)(rng)  # (2, B)
        level = None
        if lower is not None:
            level = jnp.broadcast_to(jnp.asarray(self.noise_level if noise_level is None else noise_level), (batch,))
            upsampled = resize(lower, size)
            one = jax.vmap(lambda key, x, at: augment(key, x[None], self.noise_schedule, at[None])[0])
            lower = one(keys[1], upsampled, level)
        if not set(branches) <= set(BRANCHES) or branches[-1:] != BRANCHES[-1:]:
            raise ValueError(f"branches is {branches}, but must be some of {BRANCHES} with the last of them")
        count = len(branches)
        empty = jnp.broadcast_to(null_context, context.shape)
        full = context if self.text else empty
        told = Conditions(
            context=jnp.concatenate([full if branch == "both" else empty for branch in branches]),
            reference=repeat_batch(reference, count),
            keep=jnp.repeat(jnp.array([float(branch != "neither") for branch in branches]), batch),
            lower=None if lower is None else repeat_batch(lower, count),
            scalars=self.conditions(count * batch, None if level is None else repeat_batch(level, count), fps),
        )
        return self.start_sampler(sampler, keys[0], (batch, num_frames, *size, self.latent_channels)), told

    def step(
        self,
        params: Params,
        state: SamplerState,
        told: Conditions,
        row: Mapping[str, jax.Array],
        guidance_scale: jax.Array | float,
        reference_guidance_scale: jax.Array | float,
        sampler: str = "dpmpp_2m",
    ) -> SamplerState:
        """One step of the sampler, by a row of its table; `state` and `told` as `start` gives them.

        Args:
          params: the UNet's parameters.
          guidance_scale, reference_guidance_scale: weights of text and reference (guidance.text_and_reference), where
            `start` was given the branches that they need; may be traced.
        """
        branches = told.context.shape[0] // state.x.shape[0]

        def denoise(x, t):
            joined = self.join(repeat_batch(x, branches), told.reference, told.keep, told.lower)
            out = self.predict(params, joined, repeat_batch(t, branches), told.context, told.scalars)
            if branches == 1:
                return out
            if branches == 2:  # without the one that would count nothing, this is what is left
                return classifier_free(*jnp.split(out, branches), guidance_scale)
            return text_and_reference(*jnp.split(out, branches), guidance_scale, reference_guidance_scale)

        return self.sampler(sampler).step(denoise, state, row)

    def finish(self, drawn: jax.Array, reference: jax.Array) -> jax.Array:
        """Video latents `(B, T, h, w, C)` of unit variance, from the last `state.x`; reference as in `start`."""
        if self.reference_frames == "clean":
            return jnp.concatenate([reference, drawn[:, 1:]], axis=1)
        return drawn

    def sample_latents(
        self,
        params: Params,
        rng: jax.Array,
        context: jax.Array,
        null_context: jax.Array,
        reference: jax.Array,
        lower: jax.Array | None,
        guidance_scale: jax.Array | float,
        reference_guidance_scale: jax.Array | float,
        num_frames: int,
        num_steps: int,
        sampler: str = "dpmpp_2m",
        **settings: Any,
    ) -> jax.Array:
        """Video latents `(B, T, h, w, C)` of unit variance: `start`, `num_steps` (static) times `step`, `finish`.

        settings: the remaining arguments of `start`.
        """
        state, told = self.start(rng, context, null_context, reference, lower, num_frames, sampler, **settings)

        def step(state, row):
            return self.step(params, state, told, row, guidance_scale, reference_guidance_scale, sampler)

        return self.finish(self.run_sampler(sampler, num_steps, state, step).x, reference)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        batch = jax.tree.map(lambda x: x.astype(jnp.float32), dict(batch))
        keys = jax.random.split(rng, batch["context"].shape[0])
        drawn = self.sample_latents(
            params[self.name],
            keys,
            batch["context"],
            frozen["null_context"],
            batch["reference"],
            batch["lower"] if self.lower_resolution is not None else None,
            2.0,
            1.0,
            batch["latents"].shape[1],
            16,
            fps=batch["fps"][0] if "fps" in batch else None,
        )
        return {"reference": batch["reference"], "truth": batch["latents"], "drawn": drawn}

    def parts(self) -> dict[str, tuple[str, dict[str, Any]]]:
        names = ("resolution", "lower_resolution", "latent_channels", "reference_frames", "text", "noise_level")
        config = {"_class_name": "CascadeStage", "unet": self.unet, **self.diffusion_config()}
        return {self.name: (self.name, config | {name: getattr(self, name) for name in names})}
