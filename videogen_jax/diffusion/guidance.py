"""Guidance: network outputs under several conditions combined into one.

The formulas are linear in the output, so they hold alike for noise, velocity and clean-sample predictions.
Outputs are (B, ...). A scale is () or (B,), (B, T), ...: one number, or one for each sample or frame; it may be traced.
"""

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.schedules import append_axes


def classifier_free(outputs_uncond: jax.Array, outputs_cond: jax.Array, scale: jax.typing.ArrayLike) -> jax.Array:
    """Classifier-free guidance (Ho & Salimans 2022): uncond + scale * (cond - uncond); a scale of 1 gives cond."""
    return outputs_uncond + append_axes(scale, outputs_cond.ndim) * (outputs_cond - outputs_uncond)


def text_and_reference(
    uncond: jax.Array,
    reference: jax.Array,
    reference_text: jax.Array,
    guidance_scale: jax.typing.ArrayLike,
    reference_guidance_scale: jax.typing.ArrayLike,
) -> jax.Array:
    """Guidance that weighs reference image and text apart (InstructPix2Pix, Brooks et al. 2023, eq. 3).

    uncond: output with neither; reference: with the reference image alone; reference_text: with both. Gives
    uncond + reference_guidance_scale * (reference - uncond) + guidance_scale * (reference_text - reference).
    """
    text_scale = append_axes(guidance_scale, uncond.ndim)
    reference_scale = append_axes(reference_guidance_scale, uncond.ndim)
    return uncond + reference_scale * (reference - uncond) + text_scale * (reference_text - reference)


def rescale(guided: jax.Array, cond: jax.Array, phi: jax.typing.ArrayLike) -> jax.Array:
    """Bring each sample's standard deviation back towards that before guidance (Lin et al. 2023, eq. 14 to 16).

    guided, cond: (B, ...). phi: 0 leaves `guided`, 1 gives it `cond`'s standard deviation; 0.7 is the paper's choice.
    """
    axes = tuple(range(1, guided.ndim))
    std_guided = jnp.std(guided, axis=axes, keepdims=True)
    std_cond = jnp.std(cond, axis=axes, keepdims=True)
    ratio = std_cond / jnp.maximum(std_guided, jnp.finfo(std_guided.dtype).tiny)
    return guided * (1.0 + append_axes(phi, guided.ndim) * (ratio - 1.0))
