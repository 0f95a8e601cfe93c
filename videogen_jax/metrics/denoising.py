"""The error of a cascade stage in denoising held-out clips.

Samples have to be judged by a reader of pixels; this compares trainings of one stage on many clips in little time. All
trainings get the same clips with the same noise, so the difference between two of them is a paired one.
"""

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.predictions import x0_from_prediction
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.stage import Batch, Params


def denoising_errors(
    stage: CascadeStage, params: Params, null_context: jax.Array, batch: Batch, t: jax.Array, keys: jax.Array
) -> dict[str, jax.Array]:
    """Measure the errors of the stage's estimate of the clean latents, with the conditioning that it has in sampling.

    Args:
      stage: the stage.
      params: the parameters of its UNet.
      null_context: text states of the empty prompt `(L, D)`.
      batch: as in `CascadeStage.loss`; `lower` is noised to the stage's own noise level.
      t: `(B,)` int32, timesteps to which the latents are noised.
      keys: `(B,)`. Each clip's noise comes from its own key.

    Returns:
      Mean squared errors, `(B,)` each: `latents`, of the estimate; `change`, of its change from frame to frame, which
      leaves out errors that all frames share.
    """
    batch = {name: value.astype(jnp.float32) for name, value in batch.items()}
    latents, schedule = batch["latents"], stage.noise_schedule
    batch_size = len(latents)
    noise_keys, augment_keys = jax.vmap(jax.random.split, out_axes=1)(keys)  # (B,) each
    noise = jax.vmap(lambda key, x: jax.random.normal(key, x.shape, jnp.float32))(noise_keys, latents)
    x_t = schedule.add_noise(latents, noise, t)
    context = batch["context"] if stage.text else jnp.broadcast_to(null_context, batch["context"].shape)
    lower = level = None
    if stage.lower_resolution is not None:
        level = jnp.full((batch_size,), stage.noise_level)
        lower = stage.augment_lower(augment_keys, batch["lower"], latents.shape[2:4], level)
    x = stage.unet_input(x_t, batch["reference"], jnp.ones(batch_size), lower)
    scalar_conditions = stage.scalar_conditions(batch_size, level, batch.get("fps"))
    output = stage.predict(params, x, t, context, scalar_conditions)
    estimate = x0_from_prediction(stage.prediction_type, output, x_t, schedule.alpha(t), schedule.sigma(t))
    error = stage.finish(estimate, batch["reference"]) - latents

    def mean_square(x: jax.Array) -> jax.Array:
        return jnp.mean(x**2, axis=(1, 2, 3, 4))

    return {"latents": mean_square(error), "change": mean_square(jnp.diff(error, axis=1))}
