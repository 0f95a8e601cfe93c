import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from videogen_jax.runtime import command_line

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


def test_refused_config_ends_the_program_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "videogen_jax.train", TEXT, f"--workdir={tmp_path}", "--config.stage=nonsense"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: config.stage is 'nonsense'; the stages are text, ")
    assert "Traceback" not in result.stderr


def test_a_workdir_that_is_an_address_is_refused():
    command = [sys.executable, "-m", "videogen_jax.train", TEXT, "--workdir=gs://bucket/run"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == (
        "error: --workdir gs://bucket/run is an address; it must be a folder, such as one where the bucket is mounted\n"
    )
