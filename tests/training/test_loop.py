import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.data.loader import make_loader
from videogen_jax.training.checkpoints import Checkpoints
from videogen_jax.training.loop import TrainingDiverged, train


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


def test_run_starts_from_given_parameters_and_leaves_what_a_reader_needs(config, stage, source, tmp_path):
    config.steps, config.optimizer.warmup_steps, config.optimizer.learning_rate = 1, 0, 0.0
    given = {"layer": {"kernel": np.full((8, 4), 2.0, np.float32), "bias": np.ones(4, np.float32)}}
    decoded = []

    def decode(latents):
        decoded.append(latents.shape)
        return latents[..., :3]

    state = train(config, stage, source, tmp_path, decode=decode, initial_params=lambda fresh: given)
    jax.tree.map(np.testing.assert_array_equal, state.params, given)
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
