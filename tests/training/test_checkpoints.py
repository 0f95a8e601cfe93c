import errno
import json
import logging
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from videogen_jax.training import checkpoints as module
from videogen_jax.training.checkpoints import CannotSave, Checkpoints, abstract_state
from videogen_jax.training.loop import train
from videogen_jax.training.manifests import NAME
from videogen_jax.training.state import TrainState

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log(caplog):
    """The warnings, as one text."""
    logger = logging.getLogger("absl")
    logger.addHandler(caplog.handler)
    yield lambda: "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    logger.removeHandler(caplog.handler)


def state_of(step):
    params = {"kernel": jnp.arange(12.0).reshape(3, 4) + step}
    return TrainState(jnp.int32(step), params, jax.tree.map(lambda x: x / 2, params), ())


def abstract(state):
    device = SingleDeviceSharding(jax.devices()[0])
    return abstract_state(jax.eval_shape(lambda: state), jax.tree.map(lambda _: device, state))


def save(workdir, *steps, **options):
    checkpoints = Checkpoints(workdir, **options)
    for step in steps:
        checkpoints.save(state_of(step), {"batches": [step]})
    checkpoints.wait()
    checkpoints.close()


def restore(workdir, step=None):
    checkpoints = Checkpoints(workdir)
    try:
        state, position = checkpoints.restore(abstract(state_of(0)), step)
    finally:
        checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, state, state_of(int(state.step)))
    assert position == {"batches": [int(state.step)]}
    return int(state.step)


def folders(workdir):
    return sorted((path.name for path in (workdir / "checkpoints").iterdir()), key=lambda name: (len(name), name))


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, ["20", "25"]),
        ({"keep": 1}, ["25"]),
        ({"keep": 3}, ["15", "20", "25"]),
        ({"keep": 1, "keep_every": 10}, ["10", "20", "25"]),
        ({"keep": 9}, ["5", "10", "15", "20", "25"]),
    ],
)
def test_the_newest_and_those_of_every_n_steps_stay(tmp_path, options, left):
    save(tmp_path, 5, 10, 15, 20, 25, **options)
    assert folders(tmp_path) == left
    assert restore(tmp_path) == 25
    assert restore(tmp_path, int(left[0])) == int(left[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep_checkpoints": 0}, r"config.keep_checkpoints is 0; it must be at least 1"),
        ({"checkpoint_every": 0}, r"config.checkpoint_every is 0; it must be at least 1"),
        ({"keep_every": -2}, r"config.keep_every is -2; it must be at least 0"),
        ({"keep_every": 5}, r"config.keep_every is 5, which is not a multiple of config.checkpoint_every, 2"),
    ],
)
def test_fields_that_cannot_work_are_refused(config, stage, source, tmp_path, fields, message):
    config.update(fields)
    with pytest.raises(ValueError, match=message):
        train(config, stage, source, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_before_is_restored_whichever_file_of_the_newest_is_damaged(tmp_path, log, caplog):
    save(tmp_path, 2, 4)
    newest = tmp_path / "checkpoints" / "4"
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    assert newest / NAME in files
    assert len(files) > 10
    assert set(json.loads((newest / NAME).read_text())["files"]) | {NAME} == {
        str(path.relative_to(newest)) for path in files
    }
    for path in files:
        whole = path.read_bytes()
        for damaged in (whole[:-1], b"", None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            caplog.clear()
            assert restore(tmp_path) == 2
            assert f"Skipping the checkpoint of step 4, which is damaged: {path} " in log()
        path.write_bytes(whole)
    assert restore(tmp_path) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data[:-1] + bytes([data[-1] ^ 1]),
            r"4/state/_METADATA was changed: its SHA-256 is not the one",
        ),
        (lambda data: data[:-9], r"4/state/_METADATA has \d+ bytes, not \d+"),
        (None, r"4/state/_METADATA is missing"),
    ],
)
def test_the_damage_of_a_step_that_is_asked_for_is_named(tmp_path, change, message):
    save(tmp_path, 4)
    path = tmp_path / "checkpoints" / "4" / "state" / "_METADATA"
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"the checkpoint of step 4 is damaged: .*{message}"):
        restore(tmp_path, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "was cut short"),
        ("nonsense}", "is not a manifest"),
        ('{"files": {}}', "is not a manifest"),
        ('{"format": 1, "step": 4, "files": {"a": 1}}', "is not a manifest"),
        ('{"format": 2, "step": 4, "files": {}}', "is of format 2; this version reads format 1"),
        ('{"format": 1, "step": 6, "files": {}}', "is of step 6, not 4"),
    ],
)
def test_a_file_that_is_not_a_manifest_is_named(tmp_path, content, message):
    save(tmp_path, 4)
    (tmp_path / "checkpoints" / "4" / NAME).write_text(content + "\n")
    with pytest.raises(ValueError, match=message):
        restore(tmp_path, 4)


def test_a_run_resumes_before_a_damaged_checkpoint_and_writes_it_again(config, stage, source, tmp_path, log):
    whole = train(config, stage, source, tmp_path / "whole")
    train(config, stage, source, tmp_path / "hurt", stop_after=4)
    hurt = tmp_path / "hurt" / "checkpoints"
    (hurt / "4" / "state" / "manifest.ocdbt").write_bytes(b"")
    (hurt / "6.partial.orbax-checkpoint-tmp" / "state").mkdir(parents=True)  # of a run that was killed
    resumed = train(config, stage, source, tmp_path / "hurt")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert f"step 4, which is damaged: {hurt / '4' / 'state' / 'manifest.ocdbt'} has 0 bytes" in log()
    assert f"Removing {hurt / '4'}, which is damaged" in log()
    assert folders(tmp_path / "hurt") == ["4", "6"]
    shutil.rmtree(hurt / "6")
    resumed = train(config, stage, source, tmp_path / "hurt")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_a_run_with_damaged_checkpoints_only_does_not_start_over_by_itself(config, stage, source, tmp_path):
    train(config, stage, source, tmp_path, stop_after=4)
    for step in ("2", "4"):
        (tmp_path / "checkpoints" / step / NAME).unlink()
    with pytest.raises(ValueError, match=r"all checkpoints in .*/checkpoints are damaged"):
        train(config, stage, source, tmp_path)
    assert folders(tmp_path) == ["2", "4"]


def test_a_run_killed_in_its_first_checkpoint_starts_over(config, stage, source, tmp_path):
    (tmp_path / "checkpoints" / "2.partial").mkdir(parents=True)
    train(config, stage, source, tmp_path)
    assert folders(tmp_path) == ["4", "6"]


def test_checkpoint_of_another_model_is_refused(tmp_path):
    save(tmp_path, 4)
    for params in ({"kernel": jnp.zeros((3, 5))}, {"other": jnp.zeros((3, 4))}):
        checkpoints = Checkpoints(tmp_path)
        with pytest.raises(ValueError, match=r"the checkpoint .*/checkpoints/4 does not fit this config; undo what"):
            checkpoints.restore(abstract(TrainState(jnp.int32(0), params, params, ())))
        checkpoints.close()


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "no space left on the device"), (errno.EDQUOT, "the disk quota is exceeded"), (errno.EIO, "Input")],
)
@pytest.mark.parametrize("where", ["orbax", "manifest"])
def test_a_full_disk_leaves_the_checkpoints_before(tmp_path, monkeypatch, number, reason, where):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_of(2), {"batches": [2]})
    checkpoints.wait()

    def full(*unused, **named):
        raise OSError(number, os.strerror(number))

    def full_in_tensorstore():
        raise ValueError(f"Error writing: Failed to write [OS error {number}: {errno.errorcode[number]} ...]")

    if where == "manifest":
        monkeypatch.setattr(module, "write_manifest", full)
    else:  # Orbax waits for the one before, then for this one
        wait = checkpoints._orbax.wait_until_finished
        calls = iter([wait, lambda: (wait(), full() if number == errno.EIO else full_in_tensorstore())])
        monkeypatch.setattr(checkpoints._orbax, "wait_until_finished", lambda: next(calls)())
    checkpoints.save(state_of(4), {"batches": [4]})
    with pytest.raises(CannotSave, match=f"^cannot save a checkpoint into {tmp_path / 'checkpoints'}: {reason}"):
        checkpoints.wait()
    monkeypatch.undo()
    checkpoints.close()
    assert folders(tmp_path) == ["2"]
    assert restore(tmp_path) == 2


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(CannotSave, match=r"cannot save a checkpoint into .*/checkpoints: File exists"):
        checkpoints.save(state_of(2), {})
    checkpoints.close()


OTHER_MESHES = """
import sys
import jax, numpy as np
from configs.base import get_base_config
from tests.training.conftest import LinearSource, LinearStage
from videogen_jax.training.loop import train

def run(workdir, stop_after=None, **mesh):
    config = get_base_config()
    config.stage, config.steps, config.batch_size = "linear", 6, 8
    config.optimizer.warmup_steps, config.optimizer.learning_rate = 1, 0.05
    config.log_every = config.checkpoint_every = 1
    config.mesh.update(mesh)
    config.sharding_rules, config.fsdp_min_size = (("layer/kernel$", (None, "tensor")),), 1
    return train(config, LinearStage(), LinearSource(), f"{sys.argv[1]}/{workdir}", stop_after=stop_after)

assert jax.device_count() == 8
whole = run("whole", data=8)
run("moved", 2, data=2, fsdp=2, tensor=2)
run("moved", 4, data=1, fsdp=8)
moved = run("moved", data=1, fsdp=4, tensor=2)
assert len(moved.params["layer"]["kernel"].sharding.device_set) == 8
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), moved, whole)
np.savez(f"{sys.argv[1]}/moved.npz", *map(np.asarray, jax.tree.leaves(moved)))
"""


def test_checkpoint_is_restored_on_another_mesh_and_on_one_device(config, stage, source, tmp_path, run_command):
    result = run_command("-c", OTHER_MESHES, tmp_path, devices=8)
    assert result.returncode == 0, result.stderr
    config.batch_size = 8
    state = train(config, stage, source, tmp_path / "moved")  # of 8 devices, finished; here there is one
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)} == {1}
    with np.load(tmp_path / "moved.npz") as saved:
        for leaf, expected in zip(jax.tree.leaves(state), saved.values(), strict=True):
            np.testing.assert_array_equal(leaf, expected)
