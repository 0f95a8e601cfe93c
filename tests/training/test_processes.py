"""Training in several real processes on this machine, whose collectives go over localhost by Gloo."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from videogen_jax.training import distributed

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo", "PYTHONPATH": str(ROOT)}


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def run(workdir, steps, processes=1, mesh=None):
    """Losses by step of all that the folder has seen, after a run to `steps`."""
    command = [sys.executable, "tests/training/process_run.py", str(workdir), str(steps), json.dumps(mesh or {})]
    rest = [[]] if processes == 1 else [[str(processes), str(i)] for i in range(processes)]
    port = [] if processes == 1 else [str(free_port())]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [subprocess.Popen([*command, *more, *port], cwd=ROOT, env=ENV, **pipes) for more in rest]
    try:
        outputs = [process.communicate(timeout=400)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * processes, outputs
    return losses(workdir)


def losses(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))  # one process writes, each once
    return [record["loss"] for record in records]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "mesh"),
    [
        (2, {}),
        (4, {"data": 2, "fsdp": 2}),
        (4, {"data": -1, "tensor": 2}),
        (4, {"data": -1, "fsdp": 4}),
    ],
)
def test_processes_train_as_one_does(tmp_path, processes, mesh):
    alone = run(tmp_path / "alone", 6)
    together = run(tmp_path / "together", 6, processes, mesh)
    np.testing.assert_allclose(together, alone, rtol=1e-5)  # sums of other order; 2e-6 was seen
    for name, kernel in np.load(tmp_path / "alone" / "final.npz").items():
        np.testing.assert_allclose(np.load(tmp_path / "together" / "final.npz")[name], kernel, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("restored_on", [1, 2])
def test_what_four_processes_saved_goes_on_in_fewer(tmp_path, restored_on):
    whole = run(tmp_path / "alone", 6)
    run(tmp_path / "moved", 4, 4, {"data": 1, "fsdp": 4})
    moved = run(tmp_path / "moved", 6, restored_on, {"data": -1})
    np.testing.assert_allclose(moved, whole, rtol=1e-5)


TEXT = """
from configs.shapes import text

def get_config():
    config = text.get_config()
    fields = {"steps": 30, "batch_size": 8, "sample_count": 1, "optimizer.warmup_steps": 0, "data.num_clips": 16,
              "data.resolution": 8, "model.video_channels": (8,), "log_every": 1, "checkpoint_every": 5,
              "sample_every": 1000}
    for name in ("hidden_size", "intermediate_size", "projection_dim"):
        fields["model.text_encoder." + name] = 8
    fields["model.text_encoder.num_layers"] = fields["model.text_encoder.num_heads"] = 1
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return config
"""


def launch(tmp_path, name, **kwargs):
    """`launch/local_processes.sh` with a small text stage in tmp_path/name, not waited for."""
    (tmp_path / "config.py").write_text(TEXT)
    command = ["launch/local_processes.sh", "--processes", "2", "--logs", str(tmp_path / f"{name}_logs")]
    command += ["--heartbeat", "15", "--", "--config", str(tmp_path / "config.py"), "--workdir", str(tmp_path / name)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(command, cwd=ROOT, env={**ENV, "PATH": path}, stderr=subprocess.PIPE, text=True, **kwargs)


def processes_of(launcher):
    listed = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [int(pid) for pid in listed if b"videogen_jax.train" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def await_step(workdir, step, launcher, limit=300):
    until = time.monotonic() + limit
    metrics = workdir / "metrics.jsonl"
    while time.monotonic() < until:
        assert launcher.poll() is None, launcher.stderr.read()
        if metrics.exists() and len(metrics.read_text().splitlines()) >= step:
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached in {limit} s")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_launcher_brings_the_run_back(tmp_path, victim):
    whole = launch(tmp_path, "whole")
    assert whole.wait(400) == 0, whole.stderr.read()
    launcher = launch(tmp_path, "killed")
    try:
        await_step(tmp_path / "killed", 7, launcher)
        before = processes_of(launcher)
        os.kill(before[victim], signal.SIGKILL)
        died = time.monotonic()
        while Path(f"/proc/{before[1 - victim]}").exists():
            assert time.monotonic() - died < 60, "the other process outlived it by a minute"
            time.sleep(0.05)
        assert launcher.wait(400) == 0
    finally:
        launcher.kill()
    said = launcher.stderr.read()
    assert "a process ended with status 137" in said
    assert "start 1 of at most 3 more" in said
    log = (tmp_path / "killed_logs" / f"process-{1 - victim}.log").read_text()
    assert "has lost another one" in log or "coordination service" in log.lower(), log
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    compare = [sys.executable, "-c", SAME, str(tmp_path / "killed"), str(tmp_path / "whole")]
    subprocess.run(compare, env=ENV, check=True, timeout=120)


SAME = """
import sys
from pathlib import Path
import jax, numpy as np
import orbax.checkpoint as ocp

def read(workdir):
    path = Path(workdir) / "checkpoints" / "30" / "state"
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), metadata.tree)
        return jax.tree.leaves(checkpointer.restore(path, target))

one, other = map(read, sys.argv[1:])
assert len(one) == len(other) > 10
for a, b in zip(one, other):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", 2, None), r"--process_id must be set too, as --coordinator is"),
        ((None, 2, None), r"--coordinator, --process_id must be set too, as --num_processes is"),
        (("host", 2, 0), r"--coordinator is 'host'; it must be host:port of process 0"),
        (("host:1", 2, 2), r"--process_id is 2; of 2 processes \(--num_processes\) it must be from 0 to 1"),
    ],
)
def test_processes_that_do_not_fit_each_other_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        distributed.initialize(*arguments)


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"JAX_COORDINATOR_ADDRESS": "host:1"}, True),
        ({"SLURM_NTASKS": "4"}, False),  # the shell of an allocation, which is none of its tasks
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ],
)
def test_where_there_are_several_processes(monkeypatch, variables, several):
    for name in (*distributed.VARIABLES, "SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_ID", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed.is_multi_process() == several
