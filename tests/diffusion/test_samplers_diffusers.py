"""Samplers against diffusers' schedulers, step for step with the same network outputs."""

import jax
import numpy as np
import pytest

from tests.diffusion.sampling import sample
from videogen_jax.diffusion.samplers import make_sampler
from videogen_jax.diffusion.schedules import make_schedule
from videogen_jax.diffusion.timesteps import SPACINGS, timesteps_for

torch = pytest.importorskip("torch", reason="diffusers' schedulers need torch")
diffusers = pytest.importorskip("diffusers", reason="samplers are compared with diffusers'")

STEPS = 20
X_T = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def network(x, t, tanh, sin):
    """A fixed nonlinear function of sample and time, in whichever array library."""
    return 0.9 * tanh(1.5 * x + sin(t / 150.0)) - 0.2 * sin(3.0 * x)


def ours(sampler, prediction_type, spacing, zero_snr=False):
    schedule = make_schedule("scaled_linear", rescale_zero_terminal_snr=zero_snr)

    def denoise(x, t):
        return network(x, t[:, None, None].astype(np.float32), jax.numpy.tanh, jax.numpy.sin)

    fields = {"prediction_type": prediction_type, "spacing": spacing}
    return np.asarray(jax.jit(lambda x: sample(denoise, schedule, x, STEPS, sampler, **fields))(X_T))


def theirs(scheduler):
    x = torch.tensor(X_T) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t.float(), torch.tanh, torch.sin)
        x = scheduler.step(output, t, x).prev_sample
    return x.numpy()


def assert_close(a, b, tolerance=1e-4):
    assert np.abs(b).max() > 0.1
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("num_steps", [1, 7, 20, 30, 50, 333])
def test_timesteps(spacing, num_steps):
    ddim = diffusers.DDIMScheduler(timestep_spacing=spacing, steps_offset=1)
    ddim.set_timesteps(num_steps)
    dpm = diffusers.DPMSolverMultistepScheduler(timestep_spacing=spacing, steps_offset=1)
    dpm.set_timesteps(num_steps)
    np.testing.assert_array_equal(timesteps_for(1000, num_steps, spacing, 1), ddim.timesteps.numpy())
    ours = make_sampler("dpmpp_2m", make_schedule("scaled_linear"), "epsilon", spacing=spacing, steps_offset=1)
    np.testing.assert_array_equal(ours.timesteps(num_steps), dpm.timesteps.numpy())


def ddim_scheduler(prediction_type, spacing, zero_snr=False):
    if spacing != "linspace":
        scheduler = diffusers.DDIMScheduler(
            **STABLE_DIFFUSION,
            prediction_type=prediction_type,
            timestep_spacing=spacing,
            clip_sample=False,
            rescale_betas_zero_snr=zero_snr,
        )
        scheduler.set_timesteps(STEPS)
        return scheduler
    # DDIMScheduler always steps by N // num_steps, past or short of the next of its "linspace" timesteps. Its first
    # order DPM-Solver++ is DDIM too, and steps from each timestep to the next.
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **STABLE_DIFFUSION, prediction_type=prediction_type, solver_order=1
    )
    scheduler.set_timesteps(timesteps=timesteps_for(1000, STEPS, "linspace").tolist())
    return scheduler


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_ddim(prediction_type, spacing):
    assert_close(ours("ddim", prediction_type, spacing), theirs(ddim_scheduler(prediction_type, spacing)))


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_ddim_from_zero_snr(prediction_type):
    expected = theirs(ddim_scheduler(prediction_type, "trailing", zero_snr=True))
    assert_close(ours("ddim", prediction_type, "trailing", zero_snr=True), expected)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_dpmpp_2m(prediction_type, spacing):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **STABLE_DIFFUSION, prediction_type=prediction_type, timestep_spacing=spacing
    )
    scheduler.set_timesteps(STEPS)
    assert_close(ours("dpmpp_2m", prediction_type, spacing), theirs(scheduler))


def test_dpmpp_2m_from_zero_snr():
    # diffusers starts from alpha^2 = 2^-24 instead of 0, so its second step still extrapolates a little: not at 1e-4.
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **STABLE_DIFFUSION, prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True
    )
    scheduler.set_timesteps(STEPS)
    assert_close(ours("dpmpp_2m", "v_prediction", "trailing", zero_snr=True), theirs(scheduler), 2e-3)


def euler_scheduler(prediction_type, spacing, **options):
    scheduler = diffusers.EulerDiscreteScheduler(
        **STABLE_DIFFUSION, prediction_type=prediction_type, timestep_spacing=spacing, **options
    )
    scheduler.set_timesteps(STEPS)
    return scheduler


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_euler(prediction_type, spacing):
    scheduler = euler_scheduler(prediction_type, spacing)
    assert_close(ours("euler", prediction_type, spacing), theirs(scheduler))


def test_euler_from_zero_snr():
    # diffusers starts from sigma / alpha = 4096 instead of infinity.
    scheduler = euler_scheduler("v_prediction", "trailing", rescale_betas_zero_snr=True)
    assert_close(ours("euler", "v_prediction", "trailing", zero_snr=True), theirs(scheduler), 5e-4)
