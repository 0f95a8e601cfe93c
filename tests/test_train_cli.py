import functools
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import config_flags

from videogen_jax.runtime import command_line
from videogen_jax.training.build import build_stage
from videogen_jax.training.model_config import explicit_fields
from videogen_jax.training.preemption import PREEMPTED

ROOT = Path(__file__).parents[1]
TEXT = "--config=configs/shapes/text.py"


class Flags:
    """The flags of `train`, apart from those of the process, and what their parsing gives."""

    def __init__(self, monkeypatch, capsys):
        self.monkeypatch, self.capsys = monkeypatch, capsys
        values = flags.FlagValues()
        self.config = config_flags.DEFINE_config_file("config", None, "", flag_values=values)
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        flags.mark_flags_as_required(["config", "workdir"], flag_values=values)
        monkeypatch.setattr(flags, "FLAGS", values)
        monkeypatch.chdir(ROOT)

    def parse(self, *arguments):
        """Status, output and errors if the command line is refused, else None."""
        argv = ["train", "--workdir=runs/x", *arguments]
        self.monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for the fields that are set
        try:
            command_line.parse(argv)
        except SystemExit as stopped:
            return stopped.code, *self.capsys.readouterr()
        return None


@pytest.fixture
def train_flags(monkeypatch, capsys):
    return Flags(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TEXT, "--config.nonsense=1"], "error: there is no field config.nonsense"),
        ([TEXT, "--config.optimizer.nonsense", "1"], "error: there is no field config.optimizer.nonsense"),
        ([TEXT, "--config.steps.x=1"], "error: there is no field config.steps.x"),
        ([TEXT, "--config.steps=many"], "error: --config.steps=many: invalid literal for int() with base 10: 'many'"),
        ([TEXT, "--config.seed"], "error: Missing value for flag --config.seed"),
        ([TEXT, "--nonsense=1"], "error: Unknown command line flag 'nonsense'"),
        ([TEXT, "stray"], "error: unexpected argument 'stray'"),
        ([], "error: --config must be given"),
        (["--config=configs/nowhere.py"], "error: --config configs/nowhere.py does not exist"),
        (["--config=README.md"], "error: --config README.md is not a Python file with get_config()"),
        (
            ["--config=configs/shapes/cascade.py:resolution=5"],
            "error: the argument resolution must be 4, 8 or 16, not '5'",
        ),
        (
            ["--config=configs/shapes/cascade.py:5"],
            "error: this config has no argument '5'; its arguments are resolution: 4, 8 or 16",
        ),
    ],
)
def test_bad_command_line_is_refused_in_one_sentence(train_flags, arguments, message):
    code, out, err = train_flags.parse(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.endswith("\n")
    assert err.count("\n") == 1


def test_fields_and_arguments_of_a_config(train_flags):
    fields = ("--config.steps=7", "--config.model.resolution=16")
    assert train_flags.parse("--config=configs/shapes/cascade.py:resolution=8", *fields) is None
    config = train_flags.config.value
    assert (config.steps, config.model.resolution, config.model.lower_resolution) == (7, 16, 4)


def test_every_field_of_a_stage_can_be_set(train_flags):
    fields = {
        "model.reference_dropout=0.0": 0.0,
        "model.min_snr_gamma=5.0": 5.0,
        "model.timestep_logit_normal=(0.5, 1.0)": (0.5, 1.0),
        "model.text=false": False,
        "model.schedule.beta_end=0.02": 0.02,
        "model.unet.num_heads=(2, 4)": (2, 4),
        "model.unet.reference_attention=(False, True)": (False, True),
        "model.unet.added_conditions=('fps',)": ("fps",),
        "model.unet.size_embedding_dim=8": 8,
        "model.unet.dtype=bfloat16": "bfloat16",
    }
    arguments = [f"--config.{field}" for field in fields]
    assert train_flags.parse("--config=configs/shapes/cascade.py:resolution=4", *arguments) is None
    config = train_flags.config.value
    for field, value in fields.items():
        path = field.split("=")[0].split(".")
        assert functools.reduce(getattr, path, config) == value
    stage = build_stage("cascade", explicit_fields(config.model))
    assert (stage.reference_dropout, stage.min_snr_gamma, stage.text) == (0.0, 5.0, False)
    assert stage.network.num_heads == (2, 4)
    assert stage.network.dtype == jnp.bfloat16
    # what the stage works out from its other fields is no field of the config
    code, _, err = train_flags.parse("--config=configs/shapes/cascade.py", "--config.model.unet.in_channels=9")
    assert (code, err) == (2, "error: there is no field config.model.unet.in_channels\n")


def test_help_lists_the_fields_of_the_config(run_command):
    result = run_command("videogen_jax.train", "--config=configs/shapes/cascade.py", "--help", cwd=ROOT)
    assert result.returncode == 0
    listed = result.stdout.split("Fields of --config:\n")[1].splitlines()
    assert "  --config.model.reference_dropout=0.1" in listed
    assert "  --config.model.min_snr_gamma" in listed
    assert '  --config.model.unet.block_out_channels="(64, 128)"' in listed


def test_sigterm_while_the_config_is_read_asks_for_a_restart(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("import os, signal\n\ndef get_config():\n    os.kill(os.getpid(), signal.SIGTERM)\n")
    command = [sys.executable, "-m", "videogen_jax.train", f"--config={config}", f"--workdir={tmp_path}"]
    assert subprocess.run(command, cwd=ROOT).returncode == PREEMPTED


def test_refused_config_ends_the_program_without_a_traceback(tmp_path, run_command):
    arguments = (TEXT, f"--workdir={tmp_path}", "--config.stage=nonsense")
    result = run_command("videogen_jax.train", *arguments, cwd=ROOT)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: config.stage is 'nonsense'; the stages are text, ")
    assert "Traceback" not in result.stderr


def test_a_workdir_that_is_an_address_is_refused(run_command):
    result = run_command("videogen_jax.train", TEXT, "--workdir=gs://bucket/run", cwd=ROOT)
    assert result.returncode == 2
    assert result.stderr == (
        "error: --workdir gs://bucket/run is an address; it must be a folder, such as one where the bucket is mounted\n"
    )
