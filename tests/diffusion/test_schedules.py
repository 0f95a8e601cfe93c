import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.diffusion.augmentation import augment
from videogen_jax.diffusion.schedules import DISCRETE_SCHEDULES, append_axes, make_schedule


@pytest.mark.parametrize("name", DISCRETE_SCHEDULES)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_alphas_cumprod_falls_within_its_range(name, zero_snr):
    schedule = make_schedule(name, 100, rescale_zero_terminal_snr=zero_snr)
    alphas_cumprod = np.asarray(schedule.alphas_cumprod)
    assert alphas_cumprod.dtype == np.float32
    assert schedule.num_train_timesteps == 100
    assert np.all(np.diff(alphas_cumprod) < 0)
    assert 0.9 < alphas_cumprod[0] < 1.0
    assert (alphas_cumprod[-1] == 0.0) == zero_snr


def test_linear_schedule_is_the_product_of_its_betas():
    schedule = make_schedule("linear", 4, beta_start=0.1, beta_end=0.4)
    np.testing.assert_allclose(schedule.alphas_cumprod, [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7, 0.9 * 0.8 * 0.7 * 0.6], 1e-6)


def test_scaled_linear_is_linear_in_the_root():
    alphas_cumprod = np.asarray(make_schedule("scaled_linear", 3, beta_start=0.01, beta_end=0.25).alphas_cumprod)
    np.testing.assert_allclose(alphas_cumprod, np.cumprod(1 - np.array([0.1, 0.3, 0.5]) ** 2), 1e-6)


def test_cosine_follows_its_closed_form_until_the_clip():
    alphas_cumprod = np.asarray(make_schedule("cosine", 1000).alphas_cumprod)
    time = (np.arange(1, 1001) / 1000 + 0.008) / 1.008 * np.pi / 2
    expected = np.cos(time) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(alphas_cumprod[:-1], expected[:-1], 1e-5)
    np.testing.assert_allclose(alphas_cumprod[-1] / alphas_cumprod[-2], 1 - 0.999, 1e-3)


@pytest.mark.parametrize("name", DISCRETE_SCHEDULES)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_alphas_cumprod_equals_diffusers(name, zero_snr):
    pytest.importorskip("torch", reason="diffusers' schedulers need torch")
    diffusers = pytest.importorskip("diffusers", reason="schedules are compared with diffusers'")
    theirs = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="squaredcos_cap_v2" if name == "cosine" else name,
        rescale_betas_zero_snr=zero_snr,
    )
    ours = make_schedule(name, rescale_zero_terminal_snr=zero_snr)
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod.numpy(), rtol=0, atol=1e-6)


def test_alpha_sigma_snr_agree():
    schedule = make_schedule("scaled_linear", rescale_zero_terminal_snr=True)
    t = jnp.array([[0, 10], [500, 999]])
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert alpha.shape == sigma.shape == (2, 2)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, 1e-6)
    np.testing.assert_allclose(schedule.snr(t), alpha**2 / sigma**2, 1e-4)
    assert schedule.snr(999) == 0.0


def test_add_noise_broadcasts_a_timestep_for_each_sample():
    schedule = make_schedule("linear", 1000)
    x0 = jnp.full((2, 3, 4, 4, 1), 2.0)
    noise = jnp.full(x0.shape, -1.0)
    t = jnp.array([3, 700])
    x_t = jax.jit(lambda s, *arrays: s.add_noise(*arrays))(schedule, x0, noise, t)
    assert x_t.shape == x0.shape
    for i in range(2):
        a = np.asarray(schedule.alphas_cumprod)[t[i]]
        np.testing.assert_allclose(x_t[i], 2 * np.sqrt(a) - np.sqrt(1 - a), 1e-5)


def test_continuous_timesteps_are_those_of_their_noise_levels():
    ratio = np.array([[0.002, 0.05], [1.0, 700.0]], np.float32)
    schedule = make_schedule("karras")
    t = schedule.timestep(ratio)
    np.testing.assert_allclose(t, 0.25 * np.log(ratio), 1e-6)
    # At sigma / alpha = 0.002, 1 - alpha^2 in float32 would be 1 % off.
    np.testing.assert_allclose(schedule.alpha(t), 1 / np.sqrt(1 + ratio.astype(np.float64) ** 2), 2e-6)
    np.testing.assert_allclose(schedule.sigma(t), ratio / np.sqrt(1 + ratio.astype(np.float64) ** 2), 2e-6)
    np.testing.assert_allclose(schedule.snr(t), ratio.astype(np.float64) ** -2, 4e-6)
    np.testing.assert_allclose(schedule.alphas_cumprod_of(t), 1 / (1 + ratio.astype(np.float64) ** 2), 4e-6)
    assert schedule.alpha(t).dtype == schedule.sigma(t).dtype == schedule.snr(t).dtype == jnp.float32


def test_noise_is_added_at_log_normal_noise_levels():
    schedule = make_schedule("karras")
    ratio = np.exp(1.6 * np.random.default_rng(0).normal(size=3) + 0.7).astype(np.float32)
    x0, noise = jnp.full((3, 2, 4), 2.0), jnp.full((3, 2, 4), -1.0)
    x_t = jax.jit(lambda s, x, e, ratio: s.add_noise(x, e, s.timestep(ratio)))(schedule, x0, noise, ratio)
    for i, level in enumerate(ratio):
        np.testing.assert_allclose(x_t[i], (2.0 - level) / np.sqrt(1 + level**2), rtol=1e-5, atol=1e-5)


def test_numbered_timesteps_are_not_those_of_a_continuous_schedule():
    schedule = make_schedule("karras")
    for method in (schedule.alpha, schedule.sigma, schedule.snr):
        with pytest.raises(ValueError, match=r"ln\(sigma / alpha\) / 4, floats, but t is int32"):
            method(jnp.array([3, 700]))
    with pytest.raises(ValueError, match="no num_train_timesteps"):
        _ = schedule.num_train_timesteps
    with pytest.raises(ValueError, match="t is int32"):
        augment(jax.random.key(0), jnp.ones((2, 3)), schedule, jnp.array([100, 200]))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "sigmoid"}, "sigmoid.*linear, scaled_linear, cosine, karras"),
        ({"name": "linear", "num_train_timesteps": 1}, "num_train_timesteps"),
        ({"name": "linear", "beta_start": 0.0}, "beta_start"),
        ({"name": "linear", "beta_start": 0.1, "beta_end": 0.05}, "beta_end"),
        ({"name": "linear", "sigmas": (2.0, 1.0)}, "sigmas"),
        ({"name": "karras", "rescale_zero_terminal_snr": True}, "rescale_zero_terminal_snr"),
        ({"name": "karras", "sigma_min": 0.0}, "sigma_min"),
        ({"name": "karras", "sigma_min": 2.0, "sigma_max": 1.0}, "sigma_max"),
        ({"name": "karras", "rho": 0.0}, "rho"),
        ({"name": "karras", "sigmas": (1.0,)}, "sigmas"),
        ({"name": "karras", "sigmas": (2.0, 3.0)}, "sigmas"),
        ({"name": "karras", "sigmas": (2.0, -1.0)}, "sigmas"),
    ],
)
def test_bad_values_are_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        make_schedule(**arguments)


def test_append_axes():
    assert append_axes(2.0, 3).shape == (1, 1, 1)
    assert append_axes(jnp.ones((2, 5)), 4).shape == (2, 5, 1, 1)
    with pytest.raises(ValueError, match="axes"):
        append_axes(jnp.ones((2, 5)), 1)
