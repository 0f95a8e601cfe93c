"""Text to video by AnimateDiff with a reference image at chosen frames (SparseCtrl, Guo et al. 2023, arXiv 2311.16933).

Shapes: B videos, T frames, latents of h x w with C channels; P guidance passes.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.models.sparse_control import SparseControl
from videogen_jax.stages.latent_diffusion import repeat_batch
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Params, build_network
from videogen_jax.stages.text_to_video import TextInputs, TextToVideoStage

UNET, CONTROL = "unet", "control"  # the parts of the stage's parameters


class SparseControlInputs(NamedTuple):
    """What a batch of videos is sampled from.

    Attributes:
      texts: the prompts.
      reference: latents of the reference images `(B, 1, h, w, C)`.
      mask: `(M,)` for the M frames that a video may have: 1 where the reference is given.
    """

    texts: TextInputs
    reference: jax.Array
    mask: jax.Array


class SparseControlConditioning(NamedTuple):
    """What the networks take beside the noisy latents, for N = P * B examples.

    Attributes:
      prompts: the text.
      reference: `(N, 1, h, w, C)`, the same in all passes.
      mask: `(T,)`.
    """

    prompts: Prompts
    reference: jax.Array
    mask: jax.Array


@dataclasses.dataclass(frozen=True)
class SparseControlStage(TextToVideoStage):
    """AnimateDiff's UNet and SparseCtrl's network beside it. Guidance is by the text alone.

    Attributes:
      control: fields of `SparseControl`.
    """

    control: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def control_network(self) -> SparseControl:
        """SparseCtrl's network."""
        return build_network(SparseControl, self.control, "SparseControlStage.control")

    def scalars(self, settings: StageSettings) -> np.ndarray:
        """The mask of `reference_frames`, `(M,)` float32."""
        mask = np.zeros(self.network.motion_max_frames, np.float32)
        mask[list(settings.reference_frames)] = 1.0
        return mask

    def inputs(
        self,
        prompts: Prompts,
        empty: Prompts,
        reference: jax.Array,
        lower: jax.Array | None,
        scalars: jax.Array,
        fps: float,
    ) -> SparseControlInputs:
        del lower, fps
        return SparseControlInputs(TextInputs(prompts, empty), reference, scalars)

    def start(
        self,
        keys: jax.Array,
        inputs: SparseControlInputs,
        num_frames: int,
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[SamplerState, SparseControlConditioning]:
        """See `VideoSampling`; the conditioning has N = P * B examples."""
        state, prompts = super().start(keys, inputs.texts, num_frames, sampler, passes, noise, size)
        reference = repeat_batch(inputs.reference, len(passes))
        return state, SparseControlConditioning(prompts, reference, inputs.mask[:num_frames])

    def outputs(
        self, params: Params, x_t: jax.Array, t: jax.Array, conditioning: SparseControlConditioning
    ) -> jax.Array:
        prompts, reference, mask = conditioning
        condition = jnp.broadcast_to(reference, x_t.shape) * mask[:, None, None, None]
        network = self.control_network
        control = network.apply({"params": params[CONTROL]}, t, prompts.context, condition, mask)
        added = {"pooled_text": prompts.pooled, "sizes": prompts.sizes, "control": control}
        return self.predict(params[UNET], x_t, t, prompts.context, **added)
