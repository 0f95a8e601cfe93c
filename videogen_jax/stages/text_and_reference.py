"""What PIA and SparseCtrl have in common: they read the prompt, a reference image and a number for each frame.

Shapes: B videos, T frames, latents of h x w with C channels; P guidance passes.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.stages.latent_diffusion import repeat_batch
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.text_to_video import TextInputs, TextToVideoStage


class ReferenceInputs(NamedTuple):
    """What a batch of videos is sampled from.

    Attributes:
      texts: the prompts.
      reference: latents of the reference images `(B, 1, h, w, C)`: the posterior's mean; the authors and diffusers take
        a sample of it.
      marks: `(M,)`, a number for each of the first M frames; later ones are as the last.
    """

    texts: TextInputs
    reference: jax.Array
    marks: jax.Array


class ReferenceConditioning(NamedTuple):
    """What the networks take beside the noisy latents, for N = P * B examples.

    Attributes:
      prompts: the text.
      reference: `(N, 1, h, w, C)`, the same in all passes.
      mask: a number for each frame, `(T,)`.
    """

    prompts: Prompts
    reference: jax.Array
    mask: jax.Array


@dataclasses.dataclass(frozen=True)
class TextAndReferenceStage(TextToVideoStage):
    """A video UNet that reads the prompt and a reference image, with guidance by the text alone.

    Subclasses' `scalars` are the marks.
    """

    def inputs(
        self,
        prompts: Prompts,
        empty: Prompts,
        reference: jax.Array,
        lower: jax.Array | None,
        scalars: jax.Array,
        fps: float,
    ) -> ReferenceInputs:
        del lower, fps
        return ReferenceInputs(TextInputs(prompts, empty), reference, scalars)

    def start(
        self,
        keys: jax.Array,
        inputs: ReferenceInputs,
        num_frames: int,
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[SamplerState, ReferenceConditioning]:
        """See `VideoSampling`; the conditioning has N = P * B examples."""
        state, prompts = super().start(keys, inputs.texts, num_frames, sampler, passes, noise, size)
        reference = repeat_batch(inputs.reference, len(passes))
        return state, ReferenceConditioning(prompts, reference, self.mask(inputs.marks, num_frames))

    def mask(self, marks: jax.Array, num_frames: int) -> jax.Array:
        """The numbers of `num_frames` frames, `(T,)`, from the marks `(M,)`."""
        return marks[jnp.minimum(jnp.arange(num_frames), len(marks) - 1)]
