"""Text to video by AnimateDiff with a reference image at chosen frames (SparseCtrl, Guo et al. 2023, arXiv 2311.16933).

Shapes: B videos, T frames, latents of h x w with C channels; P guidance passes.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.models.sparse_control import SparseControl
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Params, build_network
from videogen_jax.stages.text_and_reference import ReferenceConditioning, TextAndReferenceStage

UNET, CONTROL = "unet", "control"  # the parts of the stage's parameters


@dataclasses.dataclass(frozen=True)
class SparseControlStage(TextAndReferenceStage):
    """AnimateDiff's UNet and SparseCtrl's network beside it.

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

    def outputs(self, params: Params, x_t: jax.Array, t: jax.Array, conditioning: ReferenceConditioning) -> jax.Array:
        prompts, reference, mask = conditioning
        condition = jnp.broadcast_to(reference, x_t.shape) * mask[:, None, None, None]
        network = self.control_network
        control = network.apply({"params": params[CONTROL]}, t, prompts.context, condition, mask)
        added = {"pooled_text": prompts.pooled, "sizes": prompts.sizes, "control": control}
        return self.predict(params[UNET], x_t, t, prompts.context, **added)
