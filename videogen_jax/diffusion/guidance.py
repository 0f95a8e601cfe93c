"""Guidance: the network's outputs under several conditionings, combined into one.

In one sampling step the network is applied once for each guidance pass:

    "uncond"          the empty prompt, no reference image
    "reference_only"  the empty prompt, the reference image
    "full"            the prompt and the reference image

A model without a reference image has "uncond" and "full" alone. The formulas are linear in the outputs with weights
that add up to 1, so they hold alike for noise, velocity and clean-sample predictions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.schedules import append_axes

PASSES = ("uncond", "reference_only", "full")
_COMBINATIONS = (("full",), ("uncond", "full"), ("reference_only", "full"), PASSES)


class GuidanceScales(NamedTuple):
    """The weights of guidance. Each is one number, or one for each sample `(B,)` or frame `(B, T)`; may be traced.

    Attributes:
      text: weight of the prompt; 1 is no guidance.
      reference: weight of the reference image; 1 is no guidance.
    """

    text: jax.typing.ArrayLike
    reference: jax.typing.ArrayLike = 1.0


def guidance_passes(guidance_scale: float, reference_guidance_scale: float) -> tuple[str, ...]:
    """The passes whose outputs have a weight other than 0; each costs one application of the network in every step.

    In `text_and_reference` the weights are 1 - s_R of "uncond", s_R - s_T of "reference_only" and s_T of "full", which
    is always there.

    Args:
      guidance_scale: s_T, the weight of the text.
      reference_guidance_scale: s_R, the weight of the reference image.

    Returns:
      Those of PASSES that are needed, in that order.
    """
    weights = (1.0 - reference_guidance_scale, reference_guidance_scale - guidance_scale, 1.0)
    return tuple(name for name, weight in zip(PASSES, weights, strict=True) if weight)


def check_passes(passes: tuple[str, ...]) -> None:
    """Raise ValueError unless `guide` can combine these passes."""
    if passes not in _COMBINATIONS:
        raise ValueError(f"passes is {passes}, but must be one of {', '.join(map(str, _COMBINATIONS))}")


def guide(outputs: jax.Array, passes: tuple[str, ...], scales: GuidanceScales) -> jax.Array:
    """Combine the network's outputs in the guidance passes into the guided output.

    Args:
      outputs: `(len(passes) * B, ...)`, the batch of each pass after that of the pass before.
      passes: as `guidance_passes` returns them.
      scales: the weights that `passes` belong to.

    Returns:
      The guided output `(B, ...)`.

    Raises:
      ValueError: these passes cannot be combined.
    """
    check_passes(passes)
    if passes == ("full",):  # both scales are 1
        return outputs
    by_pass = jnp.split(outputs, len(passes))
    if passes == PASSES:
        return text_and_reference(*by_pass, scales.text, scales.reference)
    # `text_and_reference` where one pass has no weight: "reference_only" if s_R = s_T, "uncond" if s_R = 1.
    return classifier_free(*by_pass, scales.text)


def classifier_free(uncond: jax.Array, cond: jax.Array, scale: jax.typing.ArrayLike) -> jax.Array:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): uncond + s (cond - uncond); a scale s of 1 gives cond.

    Args:
      uncond, cond: outputs `(B, ...)` without and with the conditioning.
      scale: s; see `GuidanceScales`. The paper writes s = 1 + w.
    """
    return uncond + append_axes(scale, cond.ndim) * (cond - uncond)


def text_and_reference(
    uncond: jax.Array,
    reference_only: jax.Array,
    full: jax.Array,
    text_scale: jax.typing.ArrayLike,
    reference_scale: jax.typing.ArrayLike,
) -> jax.Array:
    """Guidance that weighs text and reference image apart (InstructPix2Pix, Brooks et al. 2023, eq. 3).

    uncond + s_R (reference_only - uncond) + s_T (full - reference_only)

    Args:
      uncond, reference_only, full: outputs `(B, ...)` of the passes.
      text_scale, reference_scale: s_T and s_R; see `GuidanceScales`.
    """
    text_scale, reference_scale = append_axes(text_scale, full.ndim), append_axes(reference_scale, full.ndim)
    return uncond + reference_scale * (reference_only - uncond) + text_scale * (full - reference_only)
