"""Samplers configured by scheduler_config.json, compared step by step with diffusers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.sampling import sample
from videogen_jax.diffusion.schedules import make_schedule
from videogen_jax.weights.scheduler_config import Scheduler

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LEADING = {**STABLE_DIFFUSION, "timestep_spacing": "leading", "steps_offset": 1}
NOISE = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
CASES = {
    "sd15_pndm": ("PNDMScheduler", {**LEADING, "skip_prk_steps": True, "set_alpha_to_one": False}),
    "pndm_v": ("PNDMScheduler", {**LEADING, "skip_prk_steps": True, "prediction_type": "v_prediction"}),
    "pndm_to_one": ("PNDMScheduler", {**LEADING, "skip_prk_steps": True, "set_alpha_to_one": True}),
    "pndm_trailing": ("PNDMScheduler", {**STABLE_DIFFUSION, "skip_prk_steps": True, "timestep_spacing": "trailing"}),
    "sd21_ddim": (
        "DDIMScheduler",
        {**LEADING, "set_alpha_to_one": False, "clip_sample": False, "prediction_type": "v_prediction"},
    ),
    "ddim_zero_snr": (
        "DDIMScheduler",
        {
            **STABLE_DIFFUSION,
            "timestep_spacing": "trailing",
            "clip_sample": False,
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
        },
    ),
    "ddim_linear_sample": ("DDIMScheduler", {"clip_sample": False, "prediction_type": "sample"}),
    "sdxl_euler": ("EulerDiscreteScheduler", LEADING),
    "euler_linspace": ("EulerDiscreteScheduler", STABLE_DIFFUSION),
    "euler_trailing_v": (
        "EulerDiscreteScheduler",
        {**STABLE_DIFFUSION, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    ),
    "euler_zero_snr": (
        "EulerDiscreteScheduler",
        {
            **STABLE_DIFFUSION,
            "timestep_spacing": "trailing",
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
        },
    ),
    "dpmpp": ("DPMSolverMultistepScheduler", STABLE_DIFFUSION),
    "dpmpp_leading_v": ("DPMSolverMultistepScheduler", {**LEADING, "prediction_type": "v_prediction"}),
    "dpmpp_trailing": ("DPMSolverMultistepScheduler", {**STABLE_DIFFUSION, "timestep_spacing": "trailing"}),
    "dpmpp_cosine": (
        "DPMSolverMultistepScheduler",
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    ),
}


# The fields that Stable Video Diffusion's scheduler_config.json was published with.
STABLE_VIDEO_DIFFUSION = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.24.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "trained_betas": None,
    "use_karras_sigmas": True,
}
ALIGN_YOUR_STEPS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)


def network(xp, x, t, rate=0.01):
    """A smooth stand-in for a UNet that depends on all its inputs."""
    return xp.tanh(0.8 * x) + 0.3 * xp.sin(rate * t + 2.0 * x)


def their_trajectory(theirs, rate=0.01):
    """The network's input at each call, and the result."""
    import torch

    x = torch.from_numpy(NOISE) * theirs.init_noise_sigma
    inputs = []
    for t in theirs.timesteps:
        scaled = theirs.scale_model_input(x, t)
        inputs.append(scaled.numpy())
        x = theirs.step(network(torch, scaled, t.float(), rate), t, x).prev_sample
    return [*inputs, x.numpy()]


def our_trajectory(scheduler, schedule, num_steps, rate=0.01):
    """The same, and the timesteps of the calls."""
    settings = {"prediction_type": scheduler.prediction_type, "steps_offset": scheduler.steps_offset}
    settings |= {"sampler": scheduler.sampler, "spacing": scheduler.timestep_spacing}
    settings["set_alpha_to_one"] = scheduler.set_alpha_to_one
    inputs, times = [], []

    def denoise(x, t):
        jax.debug.callback(lambda x, t: (inputs.append(x), times.append(t[0])), x, t, ordered=True)
        return network(jnp, x, t.astype(jnp.float32)[:, None], rate)

    found = jax.jit(lambda x: sample(denoise, schedule, x, num_steps, **settings))(NOISE)
    jax.effects_barrier()
    return [*inputs, found], times


@pytest.mark.parametrize("name", CASES)
def test_every_step_equals_that_of_diffusers(name):
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    kind, fields = CASES[name]
    theirs = getattr(diffusers, kind)(**fields)
    scheduler = Scheduler.from_config(json.loads(theirs.to_json_string()))
    theirs.set_timesteps(20)
    expected = their_trajectory(theirs)
    found, times = our_trajectory(scheduler, make_schedule(**scheduler.schedule), 20)
    np.testing.assert_allclose(times, theirs.timesteps.numpy(), rtol=1e-6)
    for ours, truth in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, truth, atol=1e-4 * max(1.0, np.abs(truth).max()))


def their_continuous_scheduler(**timesteps):
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.EulerDiscreteScheduler.from_config(STABLE_VIDEO_DIFFUSION)
    theirs.set_timesteps(**timesteps)
    return theirs


def assert_equals_continuous(theirs, schedule, num_steps, tolerance=1e-5):
    """Timesteps, noise levels, every input of the network and the result."""
    scheduler = Scheduler.from_config(STABLE_VIDEO_DIFFUSION)
    found, times = our_trajectory(scheduler, schedule, num_steps, rate=1.0)
    assert times[0].dtype == np.float32
    np.testing.assert_allclose(times, theirs.timesteps.numpy(), rtol=1e-6, atol=1e-7)
    t = jnp.stack(times)
    np.testing.assert_allclose(schedule.sigma(t) / schedule.alpha(t), theirs.sigmas[:-1], rtol=4e-6)
    for ours, truth in zip(found, their_trajectory(theirs, rate=1.0), strict=True):
        np.testing.assert_allclose(ours, truth, rtol=0, atol=tolerance * np.abs(truth).max())


# In one step from sigma = 700 to 0.002, diffusers subtracts float32 numbers in the hundreds: its own error is 7e-5.
@pytest.mark.parametrize(("num_steps", "tolerance"), [(25, 1e-5), (2, 1e-4)])
def test_stable_video_diffusions_steps_equal_those_of_diffusers(num_steps, tolerance):
    schedule = make_schedule(**Scheduler.from_config(STABLE_VIDEO_DIFFUSION).schedule)
    assert_equals_continuous(their_continuous_scheduler(num_inference_steps=num_steps), schedule, num_steps, tolerance)


@pytest.mark.parametrize("num_steps", [25, 2])
def test_stable_video_diffusions_steps_equal_eulers_method_in_float64(num_steps):
    scheduler = Scheduler.from_config(STABLE_VIDEO_DIFFUSION)
    found, _ = our_trajectory(scheduler, make_schedule(**scheduler.schedule), num_steps, rate=1.0)
    sigmas = np.append(np.linspace(700 ** (1 / 7), 0.002 ** (1 / 7), num_steps) ** 7, 0.0)
    y = NOISE.astype(np.float64) * np.sqrt(1 + 700.0**2)
    for ours, sigma, next_sigma in zip(found, sigmas, sigmas[1:], strict=False):
        x = y / np.sqrt(1 + sigma**2)
        np.testing.assert_allclose(ours, x, rtol=0, atol=1e-5)
        v = network(np, x, 0.25 * np.log(sigma), rate=1.0)
        x0 = y / (1 + sigma**2) - sigma / np.sqrt(1 + sigma**2) * v  # Karras et al. 2022, table 1, "c_skip" and "c_out"
        y += (y - x0) / sigma * (next_sigma - sigma)
    np.testing.assert_allclose(found[-1], y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigmas", [ALIGN_YOUR_STEPS, (*ALIGN_YOUR_STEPS[:-1], 0.0)], ids=["to_noise", "to_zero"])
def test_steps_of_listed_sigmas_equal_those_of_diffusers(sigmas):
    schedule = make_schedule("karras", sigmas=sigmas)
    assert_equals_continuous(their_continuous_scheduler(sigmas=list(sigmas)), schedule, 10)


@pytest.mark.parametrize("name", CASES)
def test_a_config_survives_a_round_trip(name):
    kind, fields = CASES[name]
    scheduler = Scheduler.from_config({"_class_name": kind, **fields})
    assert Scheduler.from_config(scheduler.to_config()) == scheduler


def test_stable_video_diffusions_config_survives_a_round_trip():
    scheduler = Scheduler.from_config(STABLE_VIDEO_DIFFUSION)
    assert scheduler.schedule == {"name": "karras", "sigma_min": 0.002, "sigma_max": 700.0}
    written = scheduler.to_config()
    assert Scheduler.from_config(written) == scheduler
    diffusers = pytest.importorskip("diffusers")
    ours, theirs = (diffusers.EulerDiscreteScheduler.from_config(c) for c in (written, STABLE_VIDEO_DIFFUSION))
    for read in (ours, theirs):
        read.set_timesteps(7)
    np.testing.assert_array_equal(ours.sigmas, theirs.sigmas)
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps)
    assert ours.init_noise_sigma == theirs.init_noise_sigma


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_karras_sigmas": False}, "use_karras_sigmas is False; .* 'continuous' is supported only with True"),
        (
            {"timestep_type": "discrete", "sigma_min": None, "sigma_max": None},
            "use_karras_sigmas is True; a EulerDiscreteScheduler is supported only",
        ),
        ({"prediction_type": "epsilon"}, "prediction_type is 'epsilon'; .* only with 'v_prediction'"),
        ({"timestep_spacing": "trailing"}, "timestep_spacing is 'trailing'; .* only with 'leading'"),
        ({"final_sigmas_type": "sigma_min"}, "final_sigmas_type is 'sigma_min'"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True"),
        ({"sigma_max": None}, "sigma_max is None; .* only with a number"),
        ({"use_karras_sigmas": ...}, "lacks use_karras_sigmas, whose default is False; .* only with True"),
        ({"prediction_type": ...}, "lacks prediction_type, whose default is 'epsilon'"),
        ({"sigma_min": ...}, "sigma_min is None"),
        ({"warp": 1}, "warp is not a supported field of a EulerDiscreteScheduler with timestep_type 'continuous'"),
    ],
)
def test_other_continuous_settings_are_named(change, message):
    config = {name: value for name, value in (STABLE_VIDEO_DIFFUSION | change).items() if value is not ...}
    with pytest.raises(ValueError, match=message):
        Scheduler.from_config(config)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("sampler", {"sampler": "ddim"}),
        ("rho", {"schedule": {"name": "karras", "rho": 5.0}}),
        ("sigmas", {"schedule": {"name": "karras", "sigmas": ALIGN_YOUR_STEPS}}),
    ],
)
def test_a_continuous_schedule_that_diffusers_lacks_is_not_written(field, change):
    scheduler = dataclasses.replace(Scheduler.from_config(STABLE_VIDEO_DIFFUSION), **change)
    with pytest.raises(ValueError, match=f"^{field} is .* diffusers has a 'karras' schedule"):
        scheduler.to_config()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("HeunDiscreteScheduler", {}, "describes a HeunDiscreteScheduler; supported are DDIMScheduler, PNDM"),
        ("DDIMScheduler", {"thresholding": True}, "thresholding is True; .* only with False"),
        (
            "DDIMScheduler",
            {"clip_sample": False, "beta_schedule": "sigmoid"},
            "beta_schedule is 'sigmoid'; supported are linear",
        ),
        ("DDIMScheduler", {"trained_betas": [0.1]}, "trained_betas is"),
        ("DDIMScheduler", {"warp": 1}, "warp is not a supported field of a DDIMScheduler"),
        ("DDIMScheduler", {"clip_sample": True}, "clip_sample is True; .* only with False"),
        ("DDIMScheduler", {}, "lacks clip_sample, whose default is True; .* only with False"),
        ("PNDMScheduler", {"skip_prk_steps": False}, "skip_prk_steps is False"),
        ("PNDMScheduler", {}, "lacks skip_prk_steps, whose default is False; .* only with True"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, "use_karras_sigmas is True"),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}, "interpolation_type is 'log_linear'"),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, r"solver_order is 3; .* only with 2"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type is 'sde-dpmsolver"),
    ],
)
def test_unsupported_settings_are_named(kind, change, message):
    with pytest.raises(ValueError, match=message):
        Scheduler.from_config({"_class_name": kind, **STABLE_DIFFUSION, **change})
