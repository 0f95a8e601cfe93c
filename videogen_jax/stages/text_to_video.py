"""Text to video by the networks of public models that are guided by a prompt: a public cascade of one stage.

Shapes: B videos, T frames, latents of h x w with C channels; text of L tokens with D features; P guidance passes.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.guidance import GuidanceScales
from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.models.temporal_kinds import temporal_part
from videogen_jax.stages.public_video import PublicVideoStage
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, ModelReader, ModelWriter, Params, Spec


class TextInputs(NamedTuple):
    """What a batch of videos is sampled from.

    Attributes:
      prompts: the conditioning of B prompts.
      empty: that of the empty prompt, B times or once.
    """

    prompts: Prompts
    empty: Prompts

    def of_passes(self, passes: tuple[str, ...]) -> Prompts:
        """The conditioning of all guidance passes, N = P * B: in "uncond" the empty prompt's."""
        parts = {"uncond": self.empty, "full": self.prompts}
        return jax.tree.map(
            lambda prompt, *ones: jnp.concatenate([jnp.broadcast_to(one, prompt.shape) for one in ones]),
            self.prompts,
            *(parts[name] for name in passes),
        )


@dataclasses.dataclass(frozen=True)
class TextGuided(PublicVideoStage):
    """A video UNet that is guided by the prompt."""

    prediction_type: str = "epsilon"

    kept_parts: ClassVar[tuple[str, ...]] = ("vae", "text_encoder", "tokenizer")

    def passes(self, settings: StageSettings) -> tuple[str, ...]:
        """The guidance passes: without the prompt and with it; with it alone where its weight is 1."""
        return ("full",) if settings.guidance_scale == 1.0 else ("uncond", "full")

    def scales(self, settings: StageSettings, num_frames: int) -> GuidanceScales:
        """The weight of the text, the same for all frames."""
        del num_frames
        return GuidanceScales(np.float32(settings.guidance_scale), np.float32(1.0))

    def input_spec(self, sizes: InputSizes) -> Spec:
        return self.spec(sizes, "context")

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """Compute the denoising loss, with the text dropped at random.

        Args:
          params: the UNet's parameters, by `name`.
          frozen: `null_context` `(L, D)`, text states of the empty prompt.
          batch: see `input_spec`.
        """
        drop_rng, other_rng, noise_rng = jax.random.split(rng, 3)
        batch = jax.tree.map(lambda x: x.astype(jnp.float32), dict(batch))
        context = self.drop_text(drop_rng, batch["context"], frozen["null_context"])
        conditioning = self.training_conditioning(other_rng, batch, context)

        def predict(x_t: jax.Array, t: jax.Array) -> jax.Array:
            return self.outputs(params[self.name], x_t, t, conditioning)

        return self.denoising_loss(noise_rng, batch["latents"], predict)

    def training_conditioning(self, rng: jax.Array, batch: Batch, context: jax.Array) -> Any:
        """The conditioning that `outputs` takes, for a training batch whose text has been dropped at random."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class TextToVideoStage(TextGuided):
    """A video UNet that reads the prompt, and nothing else."""

    resolution: int = 64

    # Sampling: `start`, then `step` for each of `step_coeffs`.

    def scalars(self, settings: StageSettings) -> np.ndarray:
        """Nothing: `(0,)`."""
        del settings
        return np.zeros(0, np.float32)

    def inputs(
        self,
        prompts: Prompts,
        empty: Prompts,
        reference: Any,
        lower: jax.Array | None,
        scalars: jax.Array,
        fps: float,
    ) -> TextInputs:
        del reference, lower, scalars, fps  # the text says it all
        return TextInputs(prompts, empty)

    def start(
        self,
        keys: jax.Array,
        inputs: TextInputs,
        num_frames: int,
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[SamplerState, Prompts]:
        """See `VideoSampling`; `size` is needed, and the conditioning is that of P * B examples."""
        shape = (len(keys), num_frames, *size, self.latent_channels)
        return self.start_sampler(sampler, keys, shape, noise), inputs.of_passes(passes)

    def outputs(self, params: Params, x_t: jax.Array, t: jax.Array, conditioning: Prompts) -> jax.Array:
        added = {"pooled_text": conditioning.pooled, "sizes": conditioning.sizes}
        return self.predict(params, x_t, t, conditioning.context, **added)

    # Training.

    def training_inputs(self, batch: Batch, frozen: Params) -> TextInputs:
        return TextInputs(Prompts(batch["context"]), Prompts(frozen["null_context"][None]))

    def training_conditioning(self, rng: jax.Array, batch: Batch, context: jax.Array) -> Prompts:
        del rng, batch
        return Prompts(context)

    def warm_start(self, fresh: Params, model: ModelReader, init_from: ModelReader | None) -> Params:
        """From the UNet of `init_from`; of a Stable Diffusion folder, with its motion adapter if it is given one."""
        if init_from is None or self.network.temporal != "motion_module":
            return super().warm_start(fresh, model, init_from)
        return {**fresh, self.name: init_from.motion_unet(fresh[self.name], self.latent_channels)}

    def parts(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """See `Stage.parts`; of AnimateDiff the motion adapter alone."""
        if self.network.temporal != "motion_module":
            return super().parts()
        config = {"_class_name": "MotionAdapter", "unet": self.unet, "latent_channels": self.latent_channels}
        return {self.name: ("motion_adapter", config)}

    def export(self, params: Params, writer: ModelWriter) -> None:
        """Write the UNet and what belongs to it; of AnimateDiff the motion adapter alone."""
        if self.network.temporal != "motion_module":
            super().export(params, writer)
            return
        ((name, (folder, config)),) = self.parts().items()
        motion = temporal_part(params[name])
        if self.network.in_channels != self.latent_channels:  # PIA's first convolution takes the image too
            motion["conv_in"] = params[name]["conv_in"]
        writer.save(folder, config, motion)

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Initialise the UNet for the shapes of `latents` and `context` in `batch`."""
        x = jnp.zeros((1, *batch["latents"].shape[1:-1], self.network.in_channels))
        context = batch["context"][:1].astype(jnp.float32)
        added = {"pooled_text": batch.get("pooled"), "sizes": batch.get("sizes")}
        return {self.name: self.network.init(rng, x, jnp.zeros((1,)), context, **added)["params"]}


class VideoToVideoInputs(NamedTuple):
    """What a batch of larger videos is sampled from.

    Attributes:
      texts: the prompts.
      lower: latents `(B, T, h, w, C)` of the smaller videos, enlarged.
      scales: `(2,)`: alpha and sigma of the first step.
    """

    texts: TextInputs
    lower: jax.Array
    scales: jax.Array


@dataclasses.dataclass(frozen=True)
class VideoToVideoStage(TextToVideoStage):
    """A video UNet that makes a larger video of the video of the stage below, as ZeroScope XL does.

    That video is enlarged and noised, and sampling begins there (SDEdit, Meng et al. 2022, arXiv 2108.01073).
    VideoGen's cascade, in contrast, begins with noise alone, and is conditioned on the lower video.
    """

    encodes_lower: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "upper"

    def scalars(self, settings: StageSettings) -> np.ndarray:
        """alpha and sigma of the first step that `strength` leaves, `(2,)` float32."""
        coeffs = self.coefficients(settings)
        return np.array([coeffs["alpha"][0], coeffs["sigma"][0]], np.float32)

    def inputs(
        self,
        prompts: Prompts,
        empty: Prompts,
        reference: Any,
        lower: jax.Array,
        scalars: jax.Array,
        fps: float,
    ) -> VideoToVideoInputs:
        del reference, fps
        return VideoToVideoInputs(TextInputs(prompts, empty), lower, scalars)

    def start(
        self,
        keys: jax.Array,
        inputs: VideoToVideoInputs,
        num_frames: int,
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[SamplerState, Prompts]:
        """See `VideoSampling`; the conditioning is that of P * B examples."""
        del num_frames, size  # the lower video's
        alpha, sigma = inputs.scales
        noise = self.noise(keys, inputs.lower.shape) if noise is None else noise
        state = self.sampler(sampler).start_from(inputs.lower, noise, alpha, sigma)
        return state, inputs.texts.of_passes(passes)
