"""An environment in which JAX cannot run is one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from videogen_jax.runtime.backend import check_backend

ROOT = Path(__file__).parents[2]


def test_devices_that_are_there_are_found():
    check_backend()


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("no driver")])
def test_why_there_are_none_is_said(monkeypatch, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    reason = r" \(no driver\)" if str(error) else ""
    with pytest.raises(ValueError, match=rf"JAX finds no such device{reason}: name another platform, such as cpu"):
        check_backend()


@pytest.mark.parametrize("module", ["sample", "train"])
def test_a_command_says_it_in_one_sentence(module, tmp_path):
    arguments = {
        "sample": ["--prompt=a circle"],
        "train": [f"--config={ROOT}/configs/shapes/text.py", f"--workdir={tmp_path}/run"],
    }[module]
    done = subprocess.run(
        [sys.executable, "-m", f"videogen_jax.{module}", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "abacus"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert lines[0].startswith("error: JAX_PLATFORMS is 'abacus', but JAX finds no such device")
    assert "Traceback" not in done.stderr
