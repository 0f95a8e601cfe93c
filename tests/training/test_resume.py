import json

import jax
import numpy as np
import pytest

from videogen_jax.training.loop import train

TIMES = ("time", "steps_per_second", "clips_per_second", "data_wait")


def read_metrics(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def assert_same_state(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.fixture
def whole(config, stage, source, tmp_path):
    """A run that was not stopped, its end and its metrics."""
    state = train(config, stage, source, tmp_path / "whole")
    return state, read_metrics(tmp_path / "whole")


def test_stopped_and_resumed_run_is_bit_for_bit_the_run_that_was_not(config, stage, source, tmp_path, whole):
    state, metrics = whole
    for stop_after in (3, 5):
        stopped = train(config, stage, source, tmp_path / "stopped", stop_after=stop_after)
        assert int(stopped.step) == stop_after
    resumed = train(config, stage, source, tmp_path / "stopped")
    assert_same_state(resumed, state)
    assert read_metrics(tmp_path / "stopped") == metrics
    assert [record["step"] for record in metrics] == [1, 2, 3, 4, 5, 6]

    again = train(config, stage, source, tmp_path / "stopped")  # finished: nothing is left to do
    assert_same_state(again, state)
    assert read_metrics(tmp_path / "stopped") == metrics


def test_killed_run_goes_on_from_its_newest_checkpoint(config, stage, source, tmp_path, whole):
    state, metrics = whole
    config.sample_every = 5

    def killed(latents):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # in the sample videos of step 5, past the checkpoint of step 4
        train(config, stage, source, tmp_path / "killed", decode=killed)
    path = tmp_path / "killed" / "metrics.jsonl"
    assert [record["step"] for record in read_metrics(tmp_path / "killed")] == [1, 2, 3, 4, 5]
    path.write_text(path.read_text() + '{"step": 6, "lo')  # a line that was cut off
    config.sample_every = 100
    assert_same_state(train(config, stage, source, tmp_path / "killed"), state)
    assert read_metrics(tmp_path / "killed") == metrics
