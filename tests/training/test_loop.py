import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.data.loader import make_loader
from videogen_jax.training import loop
from videogen_jax.training.checkpoints import Checkpoints
from videogen_jax.training.loop import TrainingDiverged, train

EMPTY = np.zeros((1, 4, 4, 3), np.uint8)


def poison(config, source, step):
    """The source with an example that is not a number, first met at `step`."""
    loader = make_loader(source, config.batch_size, config.seed)
    index = [next(loader)["index"] for _ in range(step)][-1][0]
    return type(source)(int(index))


@pytest.mark.parametrize(("log_every", "met_at"), [(1, 3), (100, 4)])
def test_nan_stops_the_run_and_leaves_the_checkpoint_before(config, stage, source, tmp_path, log_every, met_at):
    config.log_every = log_every
    with pytest.raises(TrainingDiverged, match=f"stage linear: loss is nan at step {met_at}; .*learning_rate"):
        train(config, stage, poison(config, source, 3), tmp_path)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest == 2
    checkpoints.close()
    recorded = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(record["loss"]) for record in recorded)
    resumed = train(config, stage, source, tmp_path)  # without the bad example
    assert int(resumed.step) == 6
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(resumed.params))


def test_a_run_starts_from_initial_parameters_and_writes_config_and_metrics(config, stage, source, tmp_path):
    config.steps, config.optimizer.warmup_steps, config.optimizer.learning_rate = 1, 0, 0.0
    initial = {"layer": {"kernel": np.full((8, 4), 2.0, np.float32), "bias": np.ones(4, np.float32)}}
    decoded = []

    def decode(latents):
        decoded.append(latents.shape)
        return latents[..., :3]

    state = train(config, stage, source, tmp_path, decode=decode, initial_params=lambda fresh: initial)
    jax.tree.map(np.testing.assert_array_equal, state.params, initial)
    np.testing.assert_allclose(state.ema["layer"]["kernel"], 2.0, rtol=1e-6)
    assert decoded == [(2, 4, 6, 4)]
    assert json.loads((tmp_path / "config.json").read_text())["stage"] == "linear"
    (record,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert set(record) >= {"step", "time", "loss", "l1", "grad_norm", "learning_rate", "steps_per_second", "data_wait"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accumulation": 3}, "config.batch_size is 4, .*config.accumulation, 3"),
        ({"batch_size": 25}, "config.data gives 24 examples, fewer than one batch of 25"),
        ({"sample_every": 0}, "config.sample_every is 0; it must be at least 1"),
        ({"log_every": -1}, "config.log_every is -1; it must be at least 1"),
        ({"steps": 1}, "config.optimizer.warmup_steps is 1; it must be below config.steps, 1"),
        ({"sharding_rules": ((r"kernel$", ("model",)),)}, "config.sharding_rules: .*names the axis model"),
    ],
)
def test_config_that_cannot_work_is_refused(config, stage, source, tmp_path, fields, message):
    with config.unlocked():
        config.update(fields)
    with pytest.raises(ValueError, match=message):
        train(config, stage, source, tmp_path)


def test_checkpoint_of_a_folder_without_one(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        checkpoints.restore(None)
    checkpoints.close()


def test_samples_are_shown_with_the_captions_of_the_source(config, stage, source, tmp_path, monkeypatch):
    config.steps, config.optimizer.warmup_steps = 1, 0
    calls = []
    monkeypatch.setattr(loop, "comparison", lambda columns, captions: calls.append((list(columns), captions)) or EMPTY)
    captioned = type("Captioned", (type(source),), {"caption": lambda self, index: f"clip {index}" if index else None})
    train(config, stage, source, tmp_path / "plain")
    train(config, stage, captioned(), tmp_path / "captioned", decode=lambda latents: latents[..., :3])
    assert calls == [(["picture"], None), (["latents", "picture"], ["", "clip 1"])]


TWO_PROCESSES = """
import sys
import jax
from configs.base import get_base_config
from tests.training.conftest import LinearSource, LinearStage
from videogen_jax.training import distributed
from videogen_jax.training.loop import train

distributed.initialize()
config = get_base_config()
config.stage, config.steps, config.batch_size, config.optimizer.warmup_steps = "linear", 2, 4, 1
config.log_every = config.checkpoint_every = 1
state = train(config, LinearStage(), LinearSource(), sys.argv[1], decode=lambda latents: latents[..., :3])
assert "torch" not in sys.modules  # it is installed here, and takes seconds to import
print(jax.process_index(), jax.process_count(), int(state.step))
"""


def test_of_two_processes_one_writes(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    env = dict(os.environ, JAX_PLATFORMS="cpu", JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2")
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)]
    processes = [
        subprocess.Popen(command, env={**env, "JAX_PROCESS_ID": str(index)}, stdout=subprocess.PIPE, text=True)
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [output.splitlines()[-1] for output in outputs] == ["0 2 2", "1 2 2"]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"GIF89a" in events.read_bytes()
