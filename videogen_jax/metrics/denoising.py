"""How far a stage of the cascade is off when it takes noise from clips that it has not seen.

Samples have to be judged by a reader; this compares trainings of one stage by many clips in little time. The clips and
their noise are the same, so what one training gains over another is a paired difference.
"""

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.augmentation import augment
from videogen_jax.diffusion.predictions import x0_from_prediction
from videogen_jax.runtime.arrays import resize
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.stage import Batch, Params


def denoising_errors(
    stage: CascadeStage, params: Params, null_context: jax.Array, batch: Batch, t: jax.Array, keys: jax.Array
) -> dict[str, jax.Array]:
    """The errors of the stage's estimate of the clean latents, told all that it is told in sampling.

    Args:
      params: of the stage's UNet.
      null_context: text states of the empty prompt `(L, D)`.
      batch: as `CascadeStage.loss` takes it; `lower` is noised to the stage's own level.
      t: `(B,)` timesteps to which the latents are noised.
      keys: `(B,)`, one a clip, from which its noise comes.

    Returns: mean squared errors, `(B,)` each: `latents`, of the estimate, and `change`, of its change from frame to
      frame, which has no part in what stands still.
    """
    batch = {name: value.astype(jnp.float32) for name, value in batch.items()}
    latents, schedule = batch["latents"], stage.noise_schedule
    count = len(latents)
    keys = jax.vmap(jax.random.split, out_axes=1)(keys)  # (2, B)
    noise = jax.vmap(lambda key, x: jax.random.normal(key, x.shape, jnp.float32))(keys[0], latents)
    x_t = schedule.add_noise(latents, noise, t)
    context = batch["context"] if stage.text else jnp.broadcast_to(null_context, batch["context"].shape)
    lower = level = None
    if stage.lower_resolution is not None:
        level = jnp.full((count,), stage.noise_level)
        upsampled = resize(batch["lower"], stage.resolution)
        one = jax.vmap(lambda key, x, at: augment(key, x[None], schedule, at[None])[0])
        lower = one(keys[1], upsampled, level)
    joined = stage.join(x_t, batch["reference"], jnp.ones(count), lower)
    output = stage.predict(params, joined, t, context, stage.conditions(count, level, batch.get("fps")))
    estimate = x0_from_prediction(stage.prediction_type, output, x_t, schedule.alpha(t), schedule.sigma(t))
    error = stage.finish(estimate, batch["reference"]) - latents

    def mean_square(x: jax.Array) -> jax.Array:
        return jnp.mean(x**2, axis=(1, 2, 3, 4))

    return {"latents": mean_square(error), "change": mean_square(jnp.diff(error, axis=1))}
