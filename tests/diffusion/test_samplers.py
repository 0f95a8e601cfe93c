"""Samplers against closed forms: data whose optimal denoiser, and whose probability flow, are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.sampling import sample
from videogen_jax.diffusion.guidance import text_and_reference
from videogen_jax.diffusion.predictions import target
from videogen_jax.diffusion.samplers import SAMPLERS, make_sampler
from videogen_jax.diffusion.schedules import KarrasSchedule, append_axes, make_schedule
from videogen_jax.diffusion.timesteps import SPACINGS, timesteps_for
from videogen_jax.stages import settings

SCHEDULE = make_schedule("scaled_linear")
ZERO_SNR = make_schedule("scaled_linear", rescale_zero_terminal_snr=True)
KARRAS = make_schedule("karras")
MEAN, STD = 0.7, 0.4
# PNDM steps by means of noise predictions, not by x0: its steps are compared with diffusers'.
X0_SAMPLERS = tuple(sampler for sampler in SAMPLERS if sampler != "pndm")


def gaussian_denoiser(schedule, prediction_type, mean=MEAN, std=STD):
    """The optimal network for data N(mean, std^2): E[x0 | x_t], converted to the prediction type."""

    def denoise(x, t):
        if isinstance(schedule, KarrasSchedule) or jnp.issubdtype(t.dtype, jnp.integer):
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        else:  # between two timesteps, where the Euler sampler interpolates sigma / alpha
            steps = jnp.arange(schedule.num_train_timesteps)
            ratio = jnp.interp(t, steps, schedule.sigma(steps) / schedule.alpha(steps))
            alpha, sigma = 1 / jnp.sqrt(1 + ratio**2), ratio / jnp.sqrt(1 + ratio**2)
        alpha, sigma = append_axes(alpha, x.ndim), append_axes(sigma, x.ndim)
        innovation = (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)
        return target(prediction_type, mean + alpha * std**2 * innovation, sigma * innovation, alpha, sigma)

    return denoise


def last_step_std(schedule, last_timestep):
    """The standard deviation that is left after the last step, from exact samples at the last timestep.

    That step goes to E[x0 | x_t], which varies less than x0 itself.
    """
    alpha, sigma = schedule.alpha(last_timestep), schedule.sigma(last_timestep)
    return alpha * STD**2 / jnp.sqrt(alpha**2 * STD**2 + sigma**2)


def flowed(schedule, x, num_steps):
    """Where the probability flow ODE carries x from t = 999 to the last "trailing" timestep, followed by that step."""
    alpha, sigma = schedule.alpha(999), schedule.sigma(999)
    standardised = (x - alpha * MEAN) / jnp.sqrt(alpha**2 * STD**2 + sigma**2)
    return MEAN + last_step_std(schedule, 1000 // num_steps - 1) * standardised


@pytest.mark.parametrize("sampler", X0_SAMPLERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_single_point_is_found_exactly(sampler, prediction_type, spacing):
    point = jnp.array([[0.5, -1.5, 3.0], [0.0, 1.0, -2.0]])
    noise = jax.random.normal(jax.random.key(0), point.shape)
    denoise = gaussian_denoiser(SCHEDULE, prediction_type, mean=point, std=0.0)
    found = sample(denoise, SCHEDULE, noise, 7, sampler, prediction_type=prediction_type, spacing=spacing)
    np.testing.assert_allclose(found, point, atol=2e-5)


@pytest.mark.parametrize("sampler", X0_SAMPLERS)
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 8])
def test_a_single_point_is_found_from_zero_snr(sampler, prediction_type, num_steps):
    point = jnp.array([[0.5, -1.5, 3.0]])
    denoise = gaussian_denoiser(ZERO_SNR, prediction_type, mean=point, std=0.0)
    noise = jax.random.normal(jax.random.key(0), point.shape)
    found = sample(denoise, ZERO_SNR, noise, num_steps, sampler, prediction_type=prediction_type)
    np.testing.assert_allclose(found, point, atol=2e-5)


@pytest.mark.parametrize(
    ("sampler", "num_steps", "tolerance"), [("ddim", 500, 0.01), ("dpmpp_2m", 500, 2e-3), ("dpmpp_2m", 20, 3e-3)]
)
@pytest.mark.parametrize("schedule", [SCHEDULE, ZERO_SNR], ids=["nonzero_snr", "zero_snr"])
def test_deterministic_samplers_follow_the_probability_flow(sampler, num_steps, tolerance, schedule):
    x_T = jnp.linspace(-3, 3, 25)[:, None]
    found = sample(
        gaussian_denoiser(schedule, "v_prediction"), schedule, x_T, num_steps, sampler, prediction_type="v_prediction"
    )
    np.testing.assert_allclose(found, flowed(schedule, x_T, num_steps), atol=tolerance)


def test_euler_starts_from_the_noise_scaled_to_sigma():
    x_T = jnp.linspace(-3, 3, 25)[:, None]
    found = sample(gaussian_denoiser(SCHEDULE, "epsilon"), SCHEDULE, x_T, 500, "euler", prediction_type="epsilon")
    np.testing.assert_allclose(found, flowed(SCHEDULE, x_T * SCHEDULE.sigma(999), 500), atol=0.01)


def test_the_second_order_sampler_needs_fewer_steps():
    x_T = jnp.linspace(-3, 3, 25)[:, None]
    denoise = gaussian_denoiser(SCHEDULE, "v_prediction")

    def error(sampler, num_steps):
        found = sample(denoise, SCHEDULE, x_T, num_steps, sampler, prediction_type="v_prediction")
        return float(jnp.abs(found - flowed(SCHEDULE, x_T, num_steps)).max())

    assert error("ddim", 10) < 0.1
    assert error("dpmpp_2m", 10) < 0.25 * error("ddim", 10)
    assert error("dpmpp_2m", 40) < 0.2 * error("ddim", 40)
    assert error("ddim", 100) < 0.7 * error("ddim", 40)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
@pytest.mark.parametrize("schedule", [SCHEDULE, ZERO_SNR], ids=["nonzero_snr", "zero_snr"])
def test_samples_have_the_mean_and_variance_of_the_data(sampler, schedule):
    x_T = jax.random.normal(jax.random.key(3), (20000, 1))
    denoise = gaussian_denoiser(schedule, "v_prediction")
    found = sample(denoise, schedule, x_T, 1000, sampler, prediction_type="v_prediction")
    # At nonzero terminal SNR all samplers start a little off: x_T lacks alpha(999) of the signal.
    np.testing.assert_allclose(jnp.mean(found), MEAN, atol=0.03)
    np.testing.assert_allclose(jnp.std(found), STD, rtol=0.025)


@pytest.mark.parametrize(("sampler", "tolerance"), [("ddim", 0.02), ("euler", 0.02), ("dpmpp_2m", 5e-4)])
def test_samplers_follow_the_probability_flow_of_continuous_timesteps(sampler, tolerance):
    x_T = jnp.linspace(-3, 3, 25)[:, None]
    denoise = gaussian_denoiser(KARRAS, "v_prediction")
    found = sample(denoise, KARRAS, x_T, 500, sampler, prediction_type="v_prediction")
    alpha, sigma = (scale(KARRAS.timestep(700.0)) for scale in (KARRAS.alpha, KARRAS.sigma))
    standardised = (x_T - alpha * MEAN) / jnp.sqrt(alpha**2 * STD**2 + sigma**2)
    np.testing.assert_allclose(found, MEAN + STD * standardised, atol=tolerance)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", X0_SAMPLERS)
def test_steps_of_continuous_timesteps(sampler, spacing):
    schedule = make_schedule("karras", sigma_min=0.5, sigma_max=2.0, rho=2.0)
    stepwise = make_sampler(sampler, schedule, "v_prediction", spacing=spacing, steps_offset=1)
    coeffs = stepwise.coefficients(3)
    ratio = np.array([2.0, ((2**0.5 + 0.5**0.5) / 2) ** 2, 0.5])
    assert coeffs["t"].dtype == np.float32
    np.testing.assert_allclose(coeffs["t"], 0.25 * np.log(ratio), rtol=1e-6)
    np.testing.assert_allclose(coeffs["sigma"] / coeffs["alpha"], ratio, rtol=1e-6)
    noise = np.array([[1.5, -0.3]], np.float32)
    np.testing.assert_array_equal(stepwise.start(noise).x, noise)  # sigma of the first step is 0.89


def test_settings_name_the_samplers_that_there_are():
    assert tuple(SAMPLERS) == settings.SAMPLERS


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_is_compiled_once_per_shape(sampler):
    traces = 0

    @jax.jit
    def draw(params, prompt, reference, scale, reference_scale, seed):
        def denoise(x, t):
            nonlocal traces
            traces += 1
            base = params * x + t[:, None] / 1000
            return text_and_reference(base, base + reference, base + reference + prompt, scale, reference_scale)

        key = jax.random.key(seed)
        x_T = jax.random.normal(jax.random.fold_in(key, 1), prompt.shape)
        schedule = SCHEDULE if sampler == "pndm" else ZERO_SNR
        return sample(denoise, schedule, x_T, 4, sampler, prediction_type="v_prediction")

    def arguments(value, batch):
        return value, jnp.full((batch, 3), value), jnp.full((batch, 3), value / 2), 7.0 * value, value, int(10 * value)

    first = draw(*arguments(0.3, 2))
    traced = traces
    assert 1 <= traced <= 2
    second = draw(*arguments(0.6, 2))
    assert traces == traced
    assert draw._cache_size() == 1
    assert np.abs(first - second).max() > 1e-3
    draw(*arguments(0.6, 5))
    assert draw._cache_size() == 2


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_one_compiled_step_serves_any_number_of_steps(sampler, spacing):
    denoise, x_T = gaussian_denoiser(SCHEDULE, "epsilon"), jnp.linspace(-2, 2, 6).reshape(2, 3)
    stepwise = make_sampler(sampler, SCHEDULE, "epsilon", spacing=spacing)
    step = jax.jit(lambda state, coeffs: stepwise.step(denoise, state, coeffs))
    for num_steps in (6, 9):
        coeffs, state = stepwise.coefficients(num_steps), stepwise.start(x_T)
        for index in range(len(coeffs["t"])):
            state = step(state, {name: values[index] for name, values in coeffs.items()})
        whole = sample(denoise, SCHEDULE, x_T, num_steps, sampler, prediction_type="epsilon", spacing=spacing)
        np.testing.assert_allclose(state.x, whole, atol=1e-5)
    assert step._cache_size() == 1


def test_denoise_gets_one_integer_timestep_for_each_sample():
    timesteps = []

    def denoise(x, t):
        assert (t.shape, t.dtype) == ((2,), jnp.int32)
        jax.debug.callback(lambda value: timesteps.append(value.tolist()), t)
        return x.astype(jnp.bfloat16)

    found = sample(denoise, SCHEDULE, jnp.ones((2, 3)), 4, prediction_type="v_prediction")
    jax.effects_barrier()
    assert timesteps == [[t, t] for t in (999, 749, 499, 249)]
    assert found.dtype == jnp.float32


def test_timesteps():
    assert timesteps_for(1000, 4, "trailing").tolist() == [999, 749, 499, 249]
    assert timesteps_for(1000, 4, "leading").tolist() == [750, 500, 250, 0]
    assert timesteps_for(1000, 4, "leading", steps_offset=1).tolist() == [751, 501, 251, 1]
    assert timesteps_for(1000, 4, "linspace").tolist() == [999, 666, 333, 0]
    for spacing, timesteps in (("linspace", [999, 749, 500, 250]), ("leading", [800, 600, 400, 200])):
        assert make_sampler("dpmpp_2m", SCHEDULE, "epsilon", spacing=spacing).timesteps(4).tolist() == timesteps
    assert timesteps_for(10, 10, "trailing").tolist() == list(range(9, -1, -1))
    assert timesteps_for(1000, 30, "trailing").dtype == np.int32


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampler": "plms"}, "'plms'.*dpmpp_2m, ddim, euler, pndm"),
        ({"prediction_type": "flow"}, "'flow'.*epsilon"),
        ({"spacing": "karras"}, "'karras'.*leading, trailing, linspace"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 1001}, "num_steps"),
        ({"num_steps": 1000, "spacing": "linspace", "sampler": "dpmpp_2m"}, "num_steps"),
        ({"num_steps": 2, "spacing": "leading", "steps_offset": 500}, "steps_offset"),
        ({"schedule": ZERO_SNR, "prediction_type": "epsilon"}, "zero terminal SNR"),
        ({"schedule": ZERO_SNR, "sampler": "pndm"}, "'pndm' cannot start from zero terminal SNR"),
        ({"sampler": "pndm", "prediction_type": "sample"}, "'pndm' has no x0"),
        ({"schedule": KARRAS, "sampler": "pndm"}, "'pndm' takes equal strides of numbered timesteps"),
        ({"schedule": KARRAS, "num_steps": 0}, "num_steps"),
        ({"schedule": KARRAS, "set_alpha_to_one": False}, "set_alpha_to_one is False, but a 'karras'"),
        ({"schedule": make_schedule("karras", sigmas=(9.0, 1.0, 0.0))}, "num_steps is 5, but the schedule's .* of 2"),
    ],
)
def test_bad_choices_are_refused_with_the_field_named(change, named):
    arguments = {
        "denoise": lambda x, t: x,
        "schedule": SCHEDULE,
        "noise": jnp.ones((1, 2)),
        "num_steps": 5,
        "prediction_type": "v_prediction",
    }
    with pytest.raises(ValueError, match=named):
        sample(**(arguments | change))


def test_a_traced_schedule_is_refused():
    with pytest.raises(ValueError, match="constant"):
        jax.jit(lambda s: sample(lambda x, t: x, s, jnp.ones((1, 2)), 5, prediction_type="sample"))(SCHEDULE)
