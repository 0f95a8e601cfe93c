"""What the stages of public video models have in common as stages that are trained: fine-tuned from their weights.

They are sampled as `VideoSampling` says, and written back in the layout that they were read in.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from videogen_jax.stages.latent_diffusion import LatentDiffusion
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Batch, InputSizes, ModelReader, ModelWriter, Params, Spec
from videogen_jax.stages.video_sampling import VideoSampling


@dataclasses.dataclass(frozen=True)
class PublicVideoStage(VideoSampling, LatentDiffusion):
    """A public video model's UNet.

    Attributes:
      preview_steps, preview_guidance_scale: how `sample` samples during training; see `StageSettings`.
    """

    preview_steps: int = 25
    preview_guidance_scale: float = 7.5

    square_image: ClassVar[bool] = False  # whether an image encoder sees the central square of images alone
    preview_sampler: ClassVar[str] = "ddim"
    kept_parts: ClassVar[tuple[str, ...]] = ()  # folders of the model that `export` copies, for a whole model

    @property
    def preview_settings(self) -> StageSettings:
        """How `sample` samples during training."""
        return StageSettings(self.preview_guidance_scale, steps=self.preview_steps, sampler=self.preview_sampler)

    def spec(self, sizes: InputSizes, *names: str) -> Spec:
        """Of the arrays that such stages read those of these names, beside `latents`; see `input_spec`."""
        side, width = sizes.resolution, self.network.cross_attention_dim
        half = jnp.float16
        known = {
            "latents": jax.ShapeDtypeStruct((sizes.num_frames, side, side, self.latent_channels), half),
            "context": jax.ShapeDtypeStruct((sizes.text_length, width), half),
            "embedding": jax.ShapeDtypeStruct((width,), jnp.float32),
            "image_latents": jax.ShapeDtypeStruct((1, side, side, self.latent_channels), jnp.float32),
            "noise_aug_strength": jax.ShapeDtypeStruct((), jnp.float32),
            "fps": jax.ShapeDtypeStruct((), jnp.float32),
        }
        return {name: known[name] for name in ("latents", *names)}

    def training_inputs(self, batch: Batch, frozen: Params) -> Any:
        """What `sample` starts from: `inputs`' result for a training batch, whose arrays are float32."""
        raise NotImplementedError

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        """Sample videos from what a training batch's are conditioned on.

        Returns:
          `drawn` beside `truth`, latents `(B, T, h, w, C)`.
        """
        batch = jax.tree.map(lambda x: x.astype(jnp.float32), dict(batch))
        latents = batch["latents"]
        keys = jax.random.split(rng, len(latents))
        inputs, size = self.training_inputs(batch, frozen), latents.shape[2:4]
        drawn = self.sample_latents(params[self.name], keys, inputs, latents.shape[1], self.preview_settings, size)
        return {"truth": latents, "drawn": drawn}

    def parts(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """See `Stage.parts`."""
        config = {"_class_name": type(self).__name__, "unet": self.unet, **self.diffusion_config()}
        return {self.name: ("unet", config)}

    def warm_start(self, fresh: Params, model: ModelReader, init_from: ModelReader | None) -> Params:
        """From the UNet of `init_from`, a folder of the same kind."""
        if init_from is None:
            return fresh
        return {**fresh, self.name: init_from.part("unet", fresh[self.name])}

    def export(self, params: Params, writer: ModelWriter) -> None:
        """Write the UNet and its scheduler, and copy the rest of the model."""
        super().export(params, writer)
        writer.save_scheduler(self)
        for part in (*self.kept_parts, "model_index.json"):
            writer.copy_from_model(part)


def zero_dropped(x: jax.Array, dropped: jax.Array) -> jax.Array:
    """x `(B, ...)` with zeros for the examples where `dropped` `(B,)` is True."""
    return jnp.where(dropped.reshape(-1, *(1,) * (x.ndim - 1)), 0.0, x)
