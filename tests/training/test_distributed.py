import socket
import subprocess
import sys

import pytest

from videogen_jax.training import distributed


def test_half_a_description_of_the_processes_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1234")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES must be set too, as JAX_COORDINATOR_ADDRESS is"):
        distributed.initialize()


def test_one_process_may_be_all(monkeypatch):
    """In a process of its own, as jax.distributed starts before everything else."""
    code = "from videogen_jax.training import distributed; print(distributed.initialize())"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    variables = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(0, 1)\n", done.stderr


def test_a_share_by_hand():
    assert (distributed.parse_shard("3/16"), distributed.parse_shard(None)) == ((3, 16), (0, 1))
    for wrong in ("4/4", "1", "a/2", "-1/2", "0/0"):
        with pytest.raises(ValueError, match=rf"--shard is '{wrong}'; it must be i/n with i from 0 to n - 1"):
            distributed.parse_shard(wrong)
