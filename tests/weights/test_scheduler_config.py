"""Samplers configured by scheduler_config.json, compared step by step with diffusers."""

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


def network(xp, x, t):
    """A smooth stand-in for a UNet that depends on all its inputs."""
    return xp.tanh(0.8 * x) + 0.3 * xp.sin(0.01 * t + 2.0 * x)


@pytest.mark.parametrize("name", CASES)
def test_every_step_equals_that_of_diffusers(name):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    kind, fields = CASES[name]
    theirs = getattr(diffusers, kind)(**fields)
    config = json.loads(theirs.to_json_string())
    scheduler = Scheduler.from_config(config)
    schedule = make_schedule(**scheduler.schedule)
    settings = {"prediction_type": scheduler.prediction_type, "steps_offset": scheduler.steps_offset}
    settings |= {"sampler": scheduler.sampler, "spacing": scheduler.timestep_spacing}
    settings["set_alpha_to_one"] = scheduler.set_alpha_to_one
    noise = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)

    theirs.set_timesteps(20)
    x = torch.from_numpy(noise) * theirs.init_noise_sigma
    expected = []  # the network's input at each call, and the result
    for t in theirs.timesteps:
        scaled = theirs.scale_model_input(x, t)
        expected.append(scaled.numpy())
        x = theirs.step(network(torch, scaled, t.float()), t, x).prev_sample
    expected.append(x.numpy())

    inputs, times = [], []

    def denoise(x, t):
        jax.debug.callback(lambda x, t: (inputs.append(x), times.append(t[0])), x, t, ordered=True)
        return network(jnp, x, t.astype(jnp.float32)[:, None])

    found = jax.jit(lambda x: sample(denoise, schedule, x, 20, **settings))(noise)
    jax.effects_barrier()
    np.testing.assert_allclose(times, theirs.timesteps.numpy(), rtol=1e-6)
    for ours, truth in zip([*inputs, found], expected, strict=True):
        np.testing.assert_allclose(ours, truth, atol=1e-4 * max(1.0, np.abs(truth).max()))


@pytest.mark.parametrize("name", CASES)
def test_a_config_survives_a_round_trip(name):
    kind, fields = CASES[name]
    scheduler = Scheduler.from_config({"_class_name": kind, **fields})
    assert Scheduler.from_config(scheduler.to_config()) == scheduler


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
