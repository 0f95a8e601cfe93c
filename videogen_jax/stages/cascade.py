"""The cascade: latent video diffusion at rising resolutions (Li et al. 2023, section 3.2).

Each stage is a video UNet conditioned on the text, on the reference image's latents at its own resolution and, above
the first stage, on the video latents of the stage below, upsampled and noised (noise conditioning augmentation, Ho et
al. 2022, "Cascaded diffusion models", section 4). This file follows the method: the conditioning, the network's input,
the loss, sampling.

Shapes: B videos, T frames, latents of h x w with C channels; text of L tokens with D features; P guidance passes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.augmentation import augment, random_level
from videogen_jax.diffusion.guidance import GuidanceScales, check_passes, guidance_passes
from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.models.unet import image_part, inflate_unet
from videogen_jax.runtime.arrays import resize
from videogen_jax.stages.latent_diffusion import LatentDiffusion, repeat_batch
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, ModelReader, Params, Spec
from videogen_jax.stages.video_sampling import VideoSampling


class CascadeInputs(NamedTuple):
    """What one stage samples a batch of videos from.

    Attributes:
      context: text states of the prompts `(B, L, D)`.
      null_context: text states of the empty prompt `(L, D)`.
      reference: latents of the reference image at this stage's resolution `(B, 1, h, w, C)`; the video has its size.
      lower: video latents of the stage below `(B, T, h', w', C)`, or None for the first stage.
      noise_level: timestep to which `lower` is noised, `()` or `(B,)`; None: the stage's own.
      fps: frames a second, `()` or `(B,)`, for a UNet that takes it.
    """

    context: jax.Array
    null_context: jax.Array
    reference: jax.Array
    lower: jax.Array | None = None
    noise_level: jax.typing.ArrayLike | None = None
    fps: jax.typing.ArrayLike | None = None


class Conditioning(NamedTuple):
    """The UNet's conditioning in every sampling step, of all guidance passes: N = P * B, one pass after another.

    Attributes:
      context: text states `(N, L, D)`.
      reference: latents of the reference image `(N, 1, h, w, C)`.
      reference_mask: `(N,)`, 1 where the UNet gets the reference, 0 where it is dropped.
      lower: latents of the stage below, upsampled and noised `(N, T, h, w, C)`, or None for the first stage.
      scalar_conditions: the UNet's `added_conditions` by name, `(N,)` each.
    """

    context: jax.Array
    reference: jax.Array
    reference_mask: jax.Array
    lower: jax.Array | None
    scalar_conditions: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class CascadeStage(VideoSampling, LatentDiffusion):
    """One resolution of the cascade.

    The UNet's `in_channels` follow from the conditioning; its `temporal` is "make_a_video" unless another kind is set.

    Attributes:
      lower_resolution: side of the latents of the stage below, or None for the first stage.
      reference_frames: which frames the reference's latents are joined to. "all": every frame; "first": the first
        frame, zeros to the others; "clean": as "first", and they also replace that frame's noisy latents, so that the
        first frame is fixed and the others follow from it; "none": no frame, an ablation. A mask channel marks them.
      reference_init: input weights of the reference's channels, as a multiple of those of the noisy latents, in a stage
        that starts from a 2D UNet. 0 leaves that UNet's output as it is; above 0 the reference has an effect from the
        first training step.
      text: whether the stage is conditioned on the prompt; False: on the empty one, in training and in sampling.
      reference_dropout: share of the training examples without the reference, 0 to 1.
      max_noise_level: highest timestep to which the latents of the stage below are noised in training.
      noise_level: that timestep in sampling, unless the settings name another.
      preview_steps, preview_guidance_scale, preview_reference_guidance_scale: how `sample` samples during training; see
        `StageSettings`.
    """

    # Fields of the UNet that `__post_init__` works out; a config does not offer them.
    derived_fields: ClassVar[Mapping[str, tuple[str, ...]]] = {"unet": ("in_channels", "out_channels")}

    lower_resolution: int | None = None
    reference_frames: str = "all"
    text: bool = True
    reference_init: float = 0.0
    reference_dropout: float = 0.1
    max_noise_level: int = 400
    noise_level: int = 100
    preview_steps: int = 16
    preview_guidance_scale: float = 2.0
    preview_reference_guidance_scale: float = 1.0

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
        has_lower = self.lower_resolution is not None
        names = tuple(self.unet.get("added_conditions", ()))
        if has_lower and "noise_level" not in names:
            names += ("noise_level",)
        # Noisy latents, reference, mask, latents of the stage below: see `unet_input`.
        in_channels = self.latent_channels * (3 if has_lower else 2) + 1
        fields = {"in_channels": in_channels, "out_channels": self.latent_channels}
        # Configs from before there were several kinds of temporal layers have True.
        temporal = self.unet.get("temporal")
        fields |= {"temporal": temporal if isinstance(temporal, str) else "make_a_video", "added_conditions": names}
        object.__setattr__(self, "unet", {**self.unet, **fields})

    @property
    def name(self) -> str:
        """The part's folder in a model."""
        return f"cascade_{self.resolution}"

    @property
    def preview_settings(self) -> StageSettings:
        """How `sample` samples during training."""
        return StageSettings(
            self.preview_guidance_scale, self.preview_reference_guidance_scale, steps=self.preview_steps
        )

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Initialise the UNet for the shapes of `latents` and `context` in `batch`."""
        x = jnp.zeros((1, *batch["latents"].shape[1:-1], self.network.in_channels))
        scalar_conditions = {name: jnp.zeros((1,)) for name in self.network.added_conditions}
        context = batch["context"][:1].astype(jnp.float32)
        return {self.name: self.network.init(rng, x, jnp.zeros((1,)), context, scalar_conditions)["params"]}

    # Conditioning and the network's input.

    def scalar_conditions(
        self, batch: int, noise_level: jax.typing.ArrayLike | None, fps: jax.typing.ArrayLike | None
    ) -> dict[str, jax.Array]:
        """The scalars that this stage's UNet takes besides the timestep, by name, `(batch,)` float32 each.

        Args:
          noise_level: timestep of the stage below's noise, `()` or `(batch,)`.
          fps: frames a second, `()` or `(batch,)`; the UNet gets 10 times as much, a number in the range of timesteps.

        Raises:
          ValueError: one that the UNet takes is None.
        """
        known = {"noise_level": noise_level, "fps": None if fps is None else 10.0 * fps}
        conditions = {}
        for name in self.network.added_conditions:
            if known.get(name) is None:
                raise ValueError(f"stage {self.name} needs the condition {name}")
            conditions[name] = jnp.broadcast_to(jnp.asarray(known[name], jnp.float32), (batch,))
        return conditions

    def unet_input(
        self, x: jax.Array, reference: jax.Array, reference_mask: jax.Array, lower: jax.Array | None
    ) -> jax.Array:
        """Join noisy latents, reference, mask and the latents of the stage below on the channel axis.

        This is where the reference image enters the network (section 3.2).

        Args:
          x: noisy latents `(B, T, h, w, C)`.
          reference: `(B, 1, h, w, C)`.
          reference_mask: `(B,)`, 1 where the UNet gets the reference, 0 where it is dropped.
          lower: `(B, T, h, w, C)`, upsampled and noised, or None.

        Returns:
          `(B, T, h, w, 2 C + 1)`, with `lower` `(B, T, h, w, 3 C + 1)`.
        """
        if self.reference_frames == "none":
            reference_mask = jnp.zeros_like(reference_mask)
        reference_mask = reference_mask.astype(x.dtype)[:, None, None, None, None]
        reference = jnp.broadcast_to(reference * reference_mask, x.shape)  # (B, T, h, w, C)
        mask = jnp.broadcast_to(reference_mask, (*x.shape[:-1], 1))  # (B, T, h, w, 1)
        if self.reference_frames in ("first", "clean"):
            first = (jnp.arange(x.shape[1]) == 0).astype(x.dtype)[None, :, None, None, None]
            reference, mask = reference * first, mask * first
        if self.reference_frames == "clean":
            x = reference + (1.0 - mask) * x
        return jnp.concatenate([x, reference, mask, *([] if lower is None else [lower])], axis=-1)

    # Training.

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """Compute the denoising loss, with text and reference dropped at random, each by itself.

        Still images (T = 1) are trained without their reference, which would give them away.

        Args:
          params: the UNet's parameters, by `name`.
          frozen: `null_context` `(L, D)`, text states of the empty prompt.
          batch: `latents` `(B, T, h, w, C)`, `reference` `(B, 1, h, w, C)` (the clip's first frame), `context`
            `(B, L, D)`; above the first stage `lower` `(B, T, h', w', C)`; `fps` `(B,)` for a UNet that takes it.
        """
        text_rng, reference_rng, level_rng, augment_rng, noise_rng = jax.random.split(rng, 5)
        batch = jax.tree.map(lambda x: x.astype(jnp.float32), dict(batch))
        latents = batch["latents"]
        batch_size, num_frames = latents.shape[:2]
        if self.text:
            context = self.drop_text(text_rng, batch["context"], frozen["null_context"])
        else:
            context = jnp.broadcast_to(frozen["null_context"], batch["context"].shape)
        reference_mask = jax.random.bernoulli(reference_rng, 1.0 - self.reference_dropout, (batch_size,))
        if num_frames == 1:
            reference_mask = jnp.zeros_like(reference_mask)
        lower, level = None, None
        if self.lower_resolution is not None:
            level = random_level(level_rng, batch_size, self.max_noise_level)
            lower = augment(augment_rng, resize(batch["lower"], self.resolution), self.noise_schedule, level)
        scalar_conditions = self.scalar_conditions(batch_size, level, batch.get("fps"))

        def predict(x_t: jax.Array, t: jax.Array) -> jax.Array:
            x = self.unet_input(x_t, batch["reference"], reference_mask, lower)
            return self.predict(params[self.name], x, t, context, scalar_conditions)

        frame_weights = None
        if self.reference_frames == "clean":  # there is nothing to learn in a first frame that the input holds
            frame_weights = 1.0 - reference_mask[:, None] * (jnp.arange(num_frames) == 0)  # (B, T)
        return self.denoising_loss(noise_rng, latents, predict, frame_weights)

    # Sampling: `start`, then `step` for each of `step_coeffs`, then `finish`.

    def passes(self, settings: StageSettings) -> tuple[str, ...]:
        """The guidance passes that the settings need: one, two or three applications of the UNet in every step."""
        return guidance_passes(settings.guidance_scale, settings.reference_guidance_scale)

    def scales(self, settings: StageSettings, num_frames: int) -> GuidanceScales:
        """The weights of text and reference, the same for all frames."""
        del num_frames
        return GuidanceScales(np.float32(settings.guidance_scale), np.float32(settings.reference_guidance_scale))

    def scalars(self, settings: StageSettings) -> np.ndarray:
        """The timestep to which the latents of the stage below are noised, `()` int32."""
        return np.int32(self.noise_level if settings.noise_level is None else settings.noise_level)

    def inputs(
        self,
        prompts: Prompts,
        empty: Prompts,
        reference: jax.Array,
        lower: jax.Array | None,
        scalars: jax.Array,
        fps: float,
    ) -> CascadeInputs:
        return CascadeInputs(prompts.context, empty.context[0], reference, lower, scalars, fps)

    def start(
        self,
        keys: jax.Array,
        inputs: CascadeInputs,
        num_frames: int,
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[SamplerState, Conditioning]:
        """See `VideoSampling`. ValueError: `passes` cannot be combined, or an input that the UNet takes is None."""
        check_passes(passes)
        batch, size = inputs.context.shape[0], size or inputs.reference.shape[2:4]
        noise_keys, augment_keys = jax.vmap(jax.random.split, out_axes=1)(keys)  # (B,) each
        lower, level = inputs.lower, None
        if lower is not None:
            level = self.noise_level if inputs.noise_level is None else inputs.noise_level
            level = jnp.broadcast_to(jnp.asarray(level), (batch,))
            lower = self.augment_lower(augment_keys, lower, size, level)  # (B, T, h, w, C)
        fps = inputs.fps
        if fps is not None:
            fps = repeat_batch(jnp.broadcast_to(jnp.asarray(fps), (batch,)), len(passes))
        empty = jnp.broadcast_to(inputs.null_context, inputs.context.shape)
        prompt = inputs.context if self.text else empty
        conditioning = Conditioning(
            context=jnp.concatenate([prompt if name == "full" else empty for name in passes]),
            reference=repeat_batch(inputs.reference, len(passes)),
            reference_mask=jnp.repeat(jnp.array([float(name != "uncond") for name in passes]), batch),
            lower=None if lower is None else repeat_batch(lower, len(passes)),
            scalar_conditions=self.scalar_conditions(
                len(passes) * batch, None if level is None else repeat_batch(level, len(passes)), fps
            ),
        )
        shape = (batch, num_frames, *size, self.latent_channels)
        return self.start_sampler(sampler, noise_keys, shape, noise), conditioning

    def augment_lower(self, keys: jax.Array, lower: jax.Array, size: tuple[int, int], level: jax.Array) -> jax.Array:
        """Upsample the latents of the stage below and noise them (noise conditioning augmentation).

        Args:
          keys: `(B,)`. Each video's noise comes from its own key, so its sample does not depend on the batch.
          lower: `(B, T, h', w', C)`.
          size: (h, w) of this stage's latents.
          level: `(B,)`, the timesteps to which they are noised.

        Returns:
          `(B, T, h, w, C)`.
        """
        upsampled = resize(lower, size)
        return jax.vmap(lambda key, x, level: augment(key, x[None], self.noise_schedule, level[None])[0])(
            keys, upsampled, level
        )

    def outputs(self, params: Params, x_t: jax.Array, t: jax.Array, conditioning: Conditioning) -> jax.Array:
        x = self.unet_input(x_t, conditioning.reference, conditioning.reference_mask, conditioning.lower)
        return self.predict(params, x, t, conditioning.context, conditioning.scalar_conditions)

    def finish(self, x: jax.Array, reference: jax.Array) -> jax.Array:
        """The video latents `(B, T, h, w, C)` of unit variance, from `x` of the last state and the reference."""
        if self.reference_frames == "clean":
            return jnp.concatenate([reference, x[:, 1:]], axis=1)
        return x

    def sample_latents(
        self,
        params: Params,
        keys: jax.Array,
        inputs: CascadeInputs,
        num_frames: int,
        settings: StageSettings,
        size: tuple[int, int] | None = None,
    ) -> jax.Array:
        """See `VideoSampling`. Where `inputs.noise_level` is None, that of the settings counts."""
        if inputs.noise_level is None:
            inputs = inputs._replace(noise_level=settings.noise_level)
        x = super().sample_latents(params, keys, inputs, num_frames, settings, size)
        return self.finish(x, inputs.reference)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        """Sample videos from a training batch's text, references and true latents of the stage below.

        Returns:
          `drawn` beside `truth`, latents `(B, T, h, w, C)`, and `reference` `(B, 1, h, w, C)`.
        """
        batch = jax.tree.map(lambda x: x.astype(jnp.float32), dict(batch))
        inputs = CascadeInputs(
            batch["context"],
            frozen["null_context"],
            batch["reference"],
            batch["lower"] if self.lower_resolution is not None else None,
            fps=batch.get("fps"),
        )
        keys = jax.random.split(rng, batch["context"].shape[0])
        num_frames = batch["latents"].shape[1]
        drawn = self.sample_latents(params[self.name], keys, inputs, num_frames, self.preview_settings)
        return {"reference": batch["reference"], "truth": batch["latents"], "drawn": drawn}

    def parts(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """See `Stage.parts`."""
        names = ("resolution", "lower_resolution", "latent_channels", "reference_frames", "text", "noise_level")
        config = {"_class_name": "CascadeStage", "unet": self.unet, **self.diffusion_config()}
        return {self.name: (self.name, config | {name: getattr(self, name) for name in names})}

    def input_spec(self, sizes: InputSizes) -> Spec:
        def latents(num_frames: int, side: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((num_frames, side, side, self.latent_channels), jnp.float16)

        spec = {
            "latents": latents(sizes.num_frames, self.resolution),
            "reference": latents(1, self.resolution),
            "context": jax.ShapeDtypeStruct((sizes.text_length, self.network.cross_attention_dim), jnp.float16),
        }
        if self.lower_resolution is not None:
            spec["lower"] = latents(sizes.num_frames, self.lower_resolution)
        if "fps" in self.network.added_conditions:
            spec["fps"] = jax.ShapeDtypeStruct((), jnp.float32)
        return spec

    def warm_start(self, fresh: Params, model: ModelReader, init_from: ModelReader | None) -> Params:
        """From `init_from`: this stage; or a public video model's UNet; or the spatial layers from a 2D UNet.

        The folder of the latter's `unet` will do as well.
        """
        if init_from is None or init_from.has(self.name):
            return super().warm_start(fresh, model, init_from)
        video = init_from.video_unet(fresh[self.name], self.latent_channels)
        if video is not None:
            return {**fresh, self.name: video}
        folder = "unet" if init_from.has("unet") else ""
        unet = init_from.part(folder, image_part(fresh[self.name], self.latent_channels))
        return {**fresh, self.name: inflate_unet(unet, fresh[self.name], self.reference_init)}
