"""The error in denoising held-out clips, with stages whose estimate is known."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.metrics.denoising import denoising_errors
from videogen_jax.stages.cascade import CascadeStage

UNET = {"block_out_channels": (8,), "layers_per_block": 1, "cross_attention_dim": 6, "norm_num_groups": 4}
NULL = jnp.full((3, 6), 7.0)


class Known(CascadeStage):
    """A stage that records the inputs of its UNet and answers with `params`."""

    def predict(self, params, x, t, context, scalar_conditions):
        recorded.update(x=x, t=t, context=context, scalar_conditions=scalar_conditions)
        return params


recorded = {}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def measure(answer, **fields):
    """Errors of a stage of 4x4 over one of 2x2, two clips of three frames at timesteps 0 and 800."""
    stage = Known(UNET, prediction_type="sample", resolution=4, lower_resolution=2, **fields)
    batch = {"latents": normal(2, 3, 4, 4, 4), "reference": normal(2, 1, 4, 4, 4, seed=1)}
    batch |= {"context": normal(2, 3, 6, seed=2), "lower": normal(2, 3, 2, 2, 4, seed=3)}
    keys = jax.random.split(jax.random.key(0), 2)
    return batch, denoising_errors(stage, answer(batch["latents"]), NULL, batch, jnp.array([0, 800]), keys)


def test_errors_of_the_estimate_and_of_its_change():
    frames = jnp.arange(3.0)[:, None, None, None]
    _, errors = measure(lambda truth: truth + 0.5)
    np.testing.assert_allclose(errors["latents"], [0.25, 0.25], rtol=1e-5)
    np.testing.assert_allclose(errors["change"], [0, 0], atol=1e-10)  # what is off alike in all frames moves alike
    _, errors = measure(lambda truth: truth + 0.5 * frames)
    np.testing.assert_allclose(errors["latents"], [(0 + 0.25 + 1) / 3] * 2, rtol=1e-5)
    np.testing.assert_allclose(errors["change"], [0.25, 0.25], rtol=1e-5)


def test_the_stage_has_the_conditioning_that_it_has_in_sampling():
    batch, _ = measure(lambda truth: truth, noise_level=0)
    np.testing.assert_allclose(recorded["x"][0, ..., :4], batch["latents"][0], atol=0.1)  # at timestep 0 all but clean
    assert jnp.abs(recorded["x"][1, ..., :4] - batch["latents"][1]).mean() > 0.5
    np.testing.assert_array_equal(recorded["x"][:, 2, ..., 4:8], batch["reference"][:, 0])
    np.testing.assert_allclose(recorded["x"][..., 9:].mean(), batch["lower"].mean(), atol=0.05)
    np.testing.assert_array_equal(recorded["scalar_conditions"]["noise_level"], [0, 0])
    np.testing.assert_array_equal(recorded["context"], batch["context"])
    measure(lambda truth: truth, text=False, reference_frames="none")
    np.testing.assert_array_equal(recorded["context"][1], NULL)
    assert not recorded["x"][..., 4:9].any()
    np.testing.assert_array_equal(recorded["scalar_conditions"]["noise_level"], [100, 100])


def test_the_command_writes_the_errors_of_each_clip(tiny_model, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import denoising

    monkeypatch.setattr(denoising, "BATCH", 2)
    monkeypatch.setattr(denoising, "TIMESTEPS", (900,))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["denoising.py", "--model", str(tiny_model), *arguments])
        denoising.main()

    output = tmp_path / "denoising.json"
    run("--output", str(output), "--cache", str(tmp_path / "cache"), "--clips", "3", "--seed", "5")
    made = json.loads(output.read_text())
    assert (made["clips"], made["seed"]) == (3, 5)
    assert set(made["errors"]) == {"cascade_4", "cascade_8"}
    for of_stage in made["errors"].values():
        for values in of_stage["900"].values():
            assert len(set(values)) == 3
            assert min(values) > 0
    with pytest.raises(SystemExit):
        run("--output", str(output), "--clips", "0")
    monkeypatch.delitem(sys.modules, "denoising")
