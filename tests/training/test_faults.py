"""Runs that are killed and starved, in processes of their own: the drill of drill.py."""

import json
import random
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.training import drill
from videogen_jax.training.checkpoints import Checkpoints
from videogen_jax.training.preemption import PREEMPTED

ROOT = Path(__file__).parents[2]
TIMES = ("time", "steps_per_second", "clips_per_second", "data_wait")
PATIENCE = 120.0  # seconds


@pytest.fixture
def start(tmp_path):
    """Starts a run in `tmp_path/run`; its log is appended to `tmp_path/log`."""
    started = []

    def begin(*fields, workdir=tmp_path / "run", log=None):
        with (tmp_path / "log").open("a") as file:
            command = [*drill.COMMAND, f"--workdir={workdir}", *fields]
            env = drill.environment(tmp_path / "cache")
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log or file, text=True
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def steps_done(workdir):
    """The last step in the metrics, 0 where there is none."""
    path = workdir / "metrics.jsonl"
    lines = (
        [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
    )
    return json.loads(lines[-1])["step"] if lines else 0


def wait_for(process, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"the run has ended, with {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def metrics_file(workdir):
    """Which file the metrics are in: a run that goes on writes them anew."""
    path = workdir / "metrics.jsonl"
    return path.stat().st_ino if path.exists() else None


def reached(workdir, former, step):
    """Whether the run that has just been started, with metrics in another file than `former`, has done `step`."""
    return metrics_file(workdir) != former and steps_done(workdir) >= step


def read_metrics(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def digest_of(process):
    digest = process.stdout.read().splitlines()[-1]
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    return digest


def saving(workdir):
    return any(".partial" in path.name for path in (workdir / "checkpoints").glob("*"))


def fault_drill(start, tmp_path, kills, steps, seed):
    """A run of `steps` is ended `kills` times at random moments, and compared with one that is not."""
    rng = random.Random(seed)
    fields = (f"--config.steps={steps}", "--config.model.pause=0.02")
    whole = start(*fields, workdir=tmp_path / "whole")
    assert whole.wait(PATIENCE) == 0
    expected = digest_of(whole)
    workdir = tmp_path / "run"
    moments = {"starting": 0, "training": 0, "saving": 0}
    # Each kill comes in or after a step of its own, and in the first half, so that the run is never finished before,
    # even if this process has to wait for its turn.
    targets = sorted(rng.sample(range(1, steps // 2), kills))
    for target in targets:
        moment = rng.choice(("starting", "training", "training", "saving", "saving"))
        number = rng.choice((signal.SIGTERM, signal.SIGKILL))
        former = metrics_file(workdir)
        process = start(*fields)
        if moment == "starting":
            until = time.monotonic() + rng.uniform(0.5, 4.0)
            wait_for(
                process,
                lambda until=until, former=former, target=target: (
                    time.monotonic() > until or reached(workdir, former, target)
                ),
            )
        else:
            wait_for(process, lambda former=former, target=target: reached(workdir, former, target))
            if moment == "saving":
                wait_for(process, lambda: saving(workdir))
            time.sleep(rng.uniform(0.0, 0.06))
        before = steps_done(workdir)
        process.send_signal(number)
        status = process.wait(PATIENCE)
        moments[moment] += 1
        print(f"{number.name} while {moment}, at step {before} or later: status {status}")
        if number == signal.SIGKILL:
            assert status == -signal.SIGKILL
        elif moment == "starting":  # perhaps before there is a handler
            assert status in (PREEMPTED, -signal.SIGTERM)
        else:
            assert status == PREEMPTED
            assert int(max(workdir.glob("checkpoints/*"), key=lambda path: int(path.name)).name) >= before
    last = start(*fields)
    assert last.wait(PATIENCE) == 0
    assert digest_of(last) == expected
    assert read_metrics(workdir) == read_metrics(tmp_path / "whole")
    assert [record["step"] for record in read_metrics(workdir)] == list(range(1, steps + 1))
    assert not saving(workdir)
    return moments


def test_short_fault_drill(start, tmp_path):
    seed = random.randrange(2**32)
    print("seed", seed)  # pytest shows it where this fails
    fault_drill(start, tmp_path, kills=3, steps=60, seed=seed)


@pytest.mark.slow
def test_fault_drill(start, tmp_path):
    seed = random.randrange(2**32)
    print("seed", seed)
    began = time.monotonic()
    moments = fault_drill(start, tmp_path, kills=20, steps=200, seed=seed)
    print(f"20 kills, {moments}: {time.monotonic() - began:.0f} s")
    assert min(moments["training"], moments["saving"]) >= 2


def restored_step(workdir):
    """The step of the newest checkpoint, restored."""
    import jax
    from jax.sharding import SingleDeviceSharding

    from videogen_jax.data.loader import take
    from videogen_jax.training.checkpoints import abstract_state
    from videogen_jax.training.optimizer import make_optimizer
    from videogen_jax.training.state import init_state

    config = json.loads((workdir / "config.json").read_text())
    fields = drill.get_config()
    stage = drill.Stage(config["model"]["ballast"])
    optimizer = make_optimizer(fields.optimizer, config["steps"])
    example = take(drill.Source(0), [0])
    shapes = jax.eval_shape(lambda rng: init_state(stage, optimizer, rng, example), jax.random.key(0))
    device = SingleDeviceSharding(jax.devices()[0])
    checkpoints = Checkpoints(workdir)
    state, _ = checkpoints.restore(abstract_state(shapes, jax.tree.map(lambda _: device, shapes)))
    checkpoints.close()
    return int(state.step)


def assert_ended_for_want_of_space(process, log, workdir, reason):
    assert process.returncode == 1
    assert log.splitlines()[-1] == f"error: cannot save a checkpoint into {workdir / 'checkpoints'}: {reason}"
    assert "Traceback" not in log
    assert "Error:" not in log
    assert not saving(workdir)


def test_files_that_may_not_grow_end_the_run_with_its_last_checkpoint(start, tmp_path):
    workdir = tmp_path / "run"
    process = start("--config.steps=10000", log=subprocess.PIPE)
    # Not for one of them, which may come and go while this process waits for its turn.
    wait_for(process, lambda: any(int(path.name) >= 10 for path in workdir.glob("checkpoints/*[0-9]")))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))  # the metrics are larger already
    log = process.communicate(timeout=PATIENCE)[1]
    assert_ended_for_want_of_space(process, log, workdir, "a file became larger than is allowed")
    assert f"Metrics are no longer written into {workdir}: File too large" in log
    assert restored_step(workdir) >= 10


def test_full_disk_ends_the_run_with_its_last_checkpoint(start, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system of 20 MB cannot be mounted here: {mounted.stderr.strip()}")
    try:
        fields = ("--config.steps=10000", "--config.model.ballast=400000", "--config.keep_checkpoints=9")
        process = start(*fields, workdir=disk / "run", log=subprocess.PIPE)
        log = process.communicate(timeout=PATIENCE)[1]
        assert_ended_for_want_of_space(process, log, disk / "run", "no space left on the device")
        good = restored_step(disk / "run")
        assert good >= 5
        (filler := disk / "filler").write_bytes(b"")
        with filler.open("wb", buffering=0) as file:  # the last byte too, which metrics and config.json want
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
        assert start(*fields, workdir=disk / "run").wait(PATIENCE) == 2  # it cannot write its config.json
        assert (tmp_path / "log").read_text().splitlines()[-1].startswith("error: [Errno 28] No space left on device")
        assert restored_step(disk / "run") == good
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
