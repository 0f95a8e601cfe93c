import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training import drill
from videogen_jax.training.checkpoints import Checkpoints
from videogen_jax.training.loop import train
from videogen_jax.training.preemption import PREEMPTED, Preempted, Preemption

ROOT = Path(__file__).parents[2]


@pytest.fixture
def signal_at(monkeypatch):
    """Sends this process a signal during a step."""

    def arrange(number, at):
        asked = Preemption.requested

        def requested(self, step):
            if step == at:
                os.kill(os.getpid(), number)
                while not asked(self, step):  # the listener is a thread
                    time.sleep(0.001)
            return asked(self, step)

        monkeypatch.setattr(Preemption, "requested", requested)

    return arrange


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_stopped_by_a_signal_it_saves_the_step_and_resumes_exactly(
    config, stage, source, tmp_path, signal_at, capsys, number, status
):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    whole = train(config, stage, source, tmp_path / "whole")
    signal_at(number, 3)
    with pytest.raises(Preempted, match=f"^{number.name} at step 3, which is saved") as stopped:
        train(config, stage, source, tmp_path / "stopped")
    assert stopped.value.status == status
    assert f"{number.name}: stopping after this step, with a checkpoint" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    checkpoints = Checkpoints(tmp_path / "stopped")
    assert checkpoints.steps == [2, 3]
    checkpoints.close()
    resumed = train(config, stage, source, tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_stopped_in_its_last_step_it_has_finished(config, stage, source, tmp_path, signal_at):
    signal_at(signal.SIGTERM, 6)
    assert int(train(config, stage, source, tmp_path).step) == 6


def test_outside_the_main_thread_it_trains_without_handling_signals(config, stage, source, tmp_path):
    ends = []
    thread = threading.Thread(target=lambda: ends.append(train(config, stage, source, tmp_path)))
    thread.start()
    thread.join()
    assert int(ends[0].step) == 6


WAITS = """
import hashlib, sys, time
from videogen_jax.training.preemption import Preemption, exit_on_sigterm
exit_on_sigterm()
if sys.argv[1] == "loading":
    print("ready", flush=True)
    time.sleep(60)
with Preemption() as preemption:
    print("ready", flush=True)
    if sys.argv[1] == "busy":
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes without an instruction of Python's, as compiling is
    while not preemption.requested(1):
        time.sleep(0.01)
    print("stops", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def waiting():
    """Starts a process that waits; what it prints next is read by `readline`."""
    started = []

    def start(kind):
        command = [sys.executable, "-c", WAITS, kind]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_signal_ends_it_at_once(waiting):
    process = waiting("idle")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stops\n"
    process.send_signal(signal.SIGTERM)  # at once: the same one, passed on by a parent
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM


def test_a_second_signal_ends_it_while_python_is_busy(waiting):
    process = waiting("busy")
    process.send_signal(signal.SIGINT)
    assert "SIGINT: stopping after this step" in process.stderr.readline()
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 128 + signal.SIGINT


def test_before_training_there_is_nothing_to_save(waiting):
    process = waiting("loading")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == PREEMPTED


def test_two_processes_stop_at_the_same_step_and_one_goes_on(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    env = drill.environment(tmp_path / "cache")
    env |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    fields = ("--config.checkpoint_every=20", "--config.keep_checkpoints=9", "--config.model.ballast=16")
    command = [*drill.COMMAND, f"--workdir={tmp_path / 'two'}", "--config.steps=10000", *fields]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**env, "JAX_PROCESS_ID": str(i)}, stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    try:
        metrics = tmp_path / "two" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics.exists() or metrics.read_text().count("\n") < 25:
            assert time.monotonic() < deadline
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.02)
        processes[1].send_signal(signal.SIGTERM)  # the other one writes the metrics
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [PREEMPTED, PREEMPTED], errors
    checkpoints = Checkpoints(tmp_path / "two")
    step = checkpoints.latest
    checkpoints.close()
    assert step > 25
    assert all(f"SIGTERM at step {step}, which is saved" in error for error in errors)

    config = drill.get_config()
    config.steps, config.checkpoint_every, config.model.ballast = 10000, 20, 16
    stage, source = drill.Stage(16), drill.Source(0)
    train(config, stage, source, tmp_path / "two", stop_after=step + 2)
    train(config, stage, source, tmp_path / "one", stop_after=step + 2)
    records = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    ]
    for moved, alone in zip(*records, strict=True):
        assert moved["step"] == alone["step"]
        np.testing.assert_allclose([moved["loss"], moved["l1"]], [alone["loss"], alone["l1"]], rtol=1e-4)
