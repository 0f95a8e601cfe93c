"""Command lines of the entry points: what is wrong with one is said in a sentence, without usage text or traceback."""

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

BAD_INPUT = 2  # exit status


def parse(argv: Sequence[str], positional: int = 0) -> list[str]:
    """Parses the flags, the fields of `--config` included; give it to `app.run` as `flags_parser`.

    Args:
      positional: the most arguments that may be given without a flag; `main` finds them behind the command's name.

    Exits with status 2 and one sentence if a flag or a field is unknown, missing, or has a value that does not fit.
    """
    try:
        rest = flags.FLAGS(argv)
    except SystemExit as stopped:
        if stopped.code != 1:  # a signal, while the config was being read
            raise
        _print_fields()  # absl has printed the help that was asked for, and calls it a failure
        sys.exit(0)
    except (AttributeError, KeyError) as error:  # how ml_collections says that a field does not exist
        fail(f"there is no field {_field(str(error), argv)}")
    except SyntaxError as error:
        fail(f"--config {error.filename} is not a Python file with get_config(): line {error.lineno}, {error.msg}")
    except (flags.Error, TypeError, ValueError, OSError) as error:
        fail(_sentence(str(error)))
    if "config" in flags.FLAGS and not isinstance(flags.FLAGS["config"].value, ConfigDict):
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        known = Path(path).is_file()
        fail(f"--config {path} is not a Python file with get_config()" if known else f"--config {path} does not exist")
    if len(rest) > 1 + positional:
        fail(f"unexpected argument {rest[1 + positional]!r}")
    return rest


def parse_with_default(argv: Sequence[str], config: Path) -> list[str]:
    """As `parse`, with the file `config` where no --config is named."""
    named = any(re.fullmatch(r"--?config(=.*)?", argument) for argument in argv[1:])
    return parse(argv if named else [argv[0], f"--config={config}", *argv[1:]])


def read_prompts(prompt: str | None, prompts_file: str | None) -> list[str]:
    """The prompts of --prompt or --prompts_file. ValueError: none or both are given, or one is empty."""
    if (prompt is None) == (prompts_file is None):
        raise ValueError("give either --prompt or --prompts_file")
    if prompts_file is None:
        if not prompt.strip():
            raise ValueError("--prompt is empty")
        return [prompt.strip()]
    path = Path(prompts_file)
    if not path.is_file():
        raise ValueError(f"--prompts_file {path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts_file {path} cannot be read as UTF-8 text: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(f"--prompts_file {path} has no prompts")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"--prompts_file {path}: line {number} is empty")
    return [line.strip() for line in lines]


def speak_plainly() -> None:
    """Warnings are lines on standard error, `warning: ...`, and the log holds no more than warnings unless asked to."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)


def fail(message: object, status: int = BAD_INPUT) -> NoReturn:
    """Prints `message` as one line on standard error and exits with `status`."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(status)


def _print_fields() -> None:
    """Print the fields of the config and their values, if a --config precedes the --help."""
    config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
    if isinstance(config, ConfigDict):
        print("\nFields of --config:")
        print("\n".join(_assignments("--config", config)))


def _assignments(path: str, value: Any) -> Iterator[str]:
    """Yield `path.field=value` for each field; one without a value stands alone."""
    if isinstance(value, ConfigDict):
        for name, field in value.items():
            yield from _assignments(f"{path}.{name}", field)
    else:
        quote = '"' if isinstance(value, tuple) else ""
        yield f"  {path}" if value is None else f"  {path}={quote}{value}{quote}"


def _field(error: str, argv: Sequence[str]) -> str:
    """The field as it was given; ml_collections tells its last name only."""
    name = (re.findall(r"\w+", error) or [""])[-1]
    given = [arg.lstrip("-").split("=")[0] for arg in argv[1:]]
    return next((arg for arg in given if re.search(rf"\b{name}(\[\d+\])*$", arg)), name)


def _sentence(error: str) -> str:
    missing = re.fullmatch(r"flag --(\w+)=None: Flag --\1 must have a value other than None\.", error)
    if missing:
        return f"--{missing[1]} must be given"
    if "Error whilst parsing config file" in error:  # a traceback follows; its last line tells what was wrong
        return re.sub(r"^\w+: ", "", error.strip().splitlines()[-1])
    return error.split(" Currently supported types")[0].removeprefix("flag ")
