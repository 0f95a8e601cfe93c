import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.diffusion.augmentation import augment, random_level
from videogen_jax.diffusion.schedules import make_schedule


def test_augment_preserves_variance_and_keeps_alpha_of_the_signal():
    schedule = make_schedule("scaled_linear")
    x = jax.random.normal(jax.random.key(0), (3, 64, 64, 4))
    level = jnp.array([0, 250, 900])
    noised = augment(jax.random.key(1), x, schedule, level)
    axes = (1, 2, 3)
    np.testing.assert_allclose(jnp.var(noised, axes), 1.0, atol=0.05)
    np.testing.assert_allclose(jnp.mean(noised * x, axes), schedule.alpha(level), atol=0.03)


def test_augment_is_the_schedule_with_noise_from_the_key():
    schedule = make_schedule("cosine", 50)
    x = jnp.ones((2, 3, 1))
    noise = jax.random.normal(jax.random.key(5), x.shape)
    level = jnp.array([4, 40])
    np.testing.assert_array_equal(augment(jax.random.key(5), x, schedule, level), schedule.add_noise(x, noise, level))


def test_random_level_covers_its_range():
    level = random_level(jax.random.key(2), 2000, 7)
    assert level.shape == (2000,)
    assert level.dtype == jnp.int32
    np.testing.assert_allclose(np.bincount(level) / 2000, np.full(8, 1 / 8), atol=0.04)
    assert np.all(random_level(jax.random.key(2), 10, 0) == 0)


def test_negative_level_is_refused():
    with pytest.raises(ValueError, match="max_level"):
        random_level(jax.random.key(0), 1, -1)
