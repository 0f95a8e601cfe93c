import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from videogen_jax import command_line, train

ROOT = Path(__file__).parents[1]
TEXT = "--config=configs/shapes/text.py"


@pytest.fixture
def parse(monkeypatch, capsys):
    """Parses a command line of `train`; returns status, output and errors if it refuses."""
    flags.mark_flags_as_required(["config", "workdir"])
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        argv = ["train", "--workdir=runs/x", *arguments]
        monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for the fields that are set
        flags.FLAGS.unparse_flags()
        try:
            command_line.parse(argv)
        except SystemExit as stopped:
            return stopped.code, *capsys.readouterr()
        return None

    yield run
    flags.FLAGS.unparse_flags()


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
        (["--config=configs/shapes/cascade.py:5"], "error: the argument of this config is a resolution of the cascade"),
    ],
)
def test_bad_command_line_is_refused_in_one_sentence(parse, arguments, message):
    code, out, err = parse(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.endswith("\n")
    assert err.count("\n") == 1


def test_fields_and_arguments_of_a_config(parse):
    assert parse("--config=configs/shapes/cascade.py:8", "--config.steps=7", "--config.model.resolution=16") is None
    assert (train.CONFIG.value.steps, train.CONFIG.value.model.resolution) == (7, 16)
    assert train.CONFIG.value.model.lower_resolution == 4


def test_refused_config_ends_the_program_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "videogen_jax.train", TEXT, f"--workdir={tmp_path}", "--config.stage=nonsense"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: config.stage is 'nonsense'; the stages are text, ")
    assert "Traceback" not in result.stderr
