"""Noise conditioning augmentation (Ho et al. 2022, "Cascaded diffusion models", section 4).

An upsampling stage is trained on a noised version of its low-resolution input, with the noise level as a condition, so
that it tolerates the flaws of the stage below. A level is a timestep of the noise schedule.
"""

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.schedules import Schedule


def augment(key: jax.Array, x: jax.Array, schedule: Schedule, level: jax.typing.ArrayLike) -> jax.Array:
    """Add noise, variance preserving: alpha(level) * x + sigma(level) * noise.

    Args:
      key: a random key.
      x: `(B, ...)`, about unit variance.
      schedule: the noise schedule.
      level: `(B,)` or `()`, a timestep of the schedule: int in [0, N), of which 0 is the least noise, or float.

    Returns:
      `(B, ...)`, at least float32.
    """
    return schedule.add_noise(x, jax.random.normal(key, x.shape, jnp.float32), level)


def random_level(key: jax.Array, batch: int, max_level: int) -> jax.Array:
    """Draw noise levels for training, uniform over 0 to max_level, both included.

    Returns:
      `(batch,)` int32.

    Raises:
      ValueError: max_level is negative.
    """
    if max_level < 0:
        raise ValueError(f"max_level is {max_level}: it must be 0 or more")
    return jax.random.randint(key, (batch,), 0, max_level + 1, dtype=jnp.int32)
