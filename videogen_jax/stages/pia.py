"""Image and text to video by PIA (Zhang et al. 2024, arXiv 2312.13964): AnimateDiff's network with a reference image.

It is VideoGen's own conditioning on public weights: the latents of the reference image are joined to the noisy latents
of every frame, with a mask that says how far each frame may depart from it.

Shapes: B videos, T frames, latents of h x w with C channels.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Batch, Params
from videogen_jax.stages.text_and_reference import ReferenceConditioning, ReferenceInputs, TextAndReferenceStage

# How like the reference image a frame is to be, 1 the most, by its distance in frames; later ones are as the last. The
# authors measured how videos differ from their first frames (section 3.2): little, moderate and much motion; the same
# as loops; and the same for images of another style than the model's.
SIMILARITY = (
    (1, 0.9, 0.85, 0.85, 0.85, 0.8),
    (1, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75),
    (1, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5),
    (1, 0.9, 0.85, 0.85, 0.85, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.85, 0.85, 0.9, 1),
    (1, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75, 0.75, 0.75, 0.75, 0.75, 0.78, 0.79, 0.8, 0.8, 1),
    (1, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.8, 1),
    (0.5, 0.4, 0.4, 0.4, 0.35, 0.3),
    (0.5, 0.4, 0.4, 0.4, 0.35, 0.35, 0.3, 0.25, 0.2),
    (0.5, 0.2),
)
_LONGEST = max(map(len, SIMILARITY))


@dataclasses.dataclass(frozen=True)
class PIAStage(TextAndReferenceStage):
    """PIA's UNet with its sampling.

    Attributes:
      motion_scale: of the training clips; see `StageSettings`.
    """

    motion_scale: int = 1

    def scalars(self, settings: StageSettings) -> np.ndarray:
        """The similarities of `motion_scale`, `(_LONGEST,)` float32."""
        row = SIMILARITY[settings.motion_scale]
        return np.asarray([*row, *row[-1:] * (_LONGEST - len(row))], np.float32)

    def outputs(self, params: Params, x_t: jax.Array, t: jax.Array, conditioning: ReferenceConditioning) -> jax.Array:
        prompts, reference, mask = conditioning
        return super().outputs(params, self.unet_input(x_t, reference, mask), t, prompts)

    def unet_input(self, x: jax.Array, reference: jax.Array, mask: jax.Array) -> jax.Array:
        """Noisy latents `(B, T, h, w, C)`, the image's `(B, 1, h, w, C)`, mask `(T,)` -> `(B, T, h, w, 2 C + 1)`."""
        mask = jnp.broadcast_to(mask[:, None, None, None], (*x.shape[:-1], 1))
        return jnp.concatenate([x, mask, jnp.broadcast_to(reference, x.shape)], axis=-1)

    # Training.

    @property
    def preview_settings(self) -> StageSettings:
        """How `sample` samples during training."""
        return dataclasses.replace(super().preview_settings, motion_scale=self.motion_scale)

    def training_inputs(self, batch: Batch, frozen: Params) -> ReferenceInputs:
        texts = super().training_inputs(batch, frozen)
        return ReferenceInputs(texts, batch["latents"][:, :1], jnp.asarray(self.scalars(self.preview_settings)))

    def training_conditioning(self, rng: jax.Array, batch: Batch, context: jax.Array) -> ReferenceConditioning:
        """The clip's first frame is its reference."""
        prompts = super().training_conditioning(rng, batch, context)
        similarity = jnp.asarray(self.scalars(self.preview_settings))
        mask = self.mask(similarity, batch["latents"].shape[1])
        return ReferenceConditioning(prompts, batch["latents"][:, :1], mask)
