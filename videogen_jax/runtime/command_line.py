"""Command lines of the entry points; errors are one sentence, without usage text or traceback."""

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
    """Parse the flags, including the fields of `--config`; pass it to `app.run` as `flags_parser`.

    Exits with status 2 and one sentence if a flag or a field is unknown, missing, or has an invalid value.

    Args:
      argv: the command line.
      positional: maximum number of positional arguments.

    Returns: the command's name and the positional arguments.
    """
    try:
        rest = flags.FLAGS(argv)
    except SystemExit as stopped:
        if stopped.code != 1:  # a signal, while the config was being read
            raise
        _print_fields()  # absl has printed the requested help, but exits with a failure status
        sys.exit(0)
    except (AttributeError, KeyError) as error:  # ml_collections' errors for a field that does not exist
        fail(f"there is no field {_field(str(error), argv)}")
    except SyntaxError as error:
        fail(f"--config {error.filename} is not a Python file with get_config(): line {error.lineno}, {error.msg}")
    except (flags.Error, TypeError, ValueError, OSError) as error:
        fail(_sentence(str(error)))
    if "config" in flags.FLAGS and not isinstance(flags.FLAGS["config"].value, ConfigDict):
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        exists = Path(path).is_file()
        fail(f"--config {path} is not a Python file with get_config()" if exists else f"--config {path} does not exist")
    if len(rest) > 1 + positional:
        fail(f"unexpected argument {rest[1 + positional]!r}")
    return rest


def parse_with_default(argv: Sequence[str], config: Path) -> list[str]:
    """Parse as `parse` does, with `config` as the default of --config."""
    has_config = any(re.fullmatch(r"--?config(=.*)?", argument) for argument in argv[1:])
    return parse(argv if has_config else [argv[0], f"--config={config}", *argv[1:]])


def read_prompts(prompt: str | None, prompts_file: str | None) -> list[str]:
    """Return the prompts of --prompt or --prompts_file.

    Raises:
      ValueError: neither or both are set, the file cannot be read, or a prompt is empty.
    """
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


def configure_output() -> None:
    """Print warnings as `warning: ...` on standard error, and log only warnings unless --verbosity is set."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)


def fail(message: object, status: int = BAD_INPUT) -> NoReturn:
    """Print `message` as one line on standard error and exit with `status`."""
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
    """Return the full name of a field from the command line; ml_collections' error has only its last component."""
    name = (re.findall(r"\w+", error) or [""])[-1]
    arguments = [argument.lstrip("-").split("=")[0] for argument in argv[1:]]
    return next((argument for argument in arguments if re.search(rf"\b{name}(\[\d+\])*$", argument)), name)


def _sentence(error: str) -> str:
    missing = re.fullmatch(r"flag --(\w+)=None: Flag --\1 must have a value other than None\.", error)
    if missing:
        return f"--{missing[1]} must be given"
    if "Error whilst parsing config file" in error:  # followed by a traceback, whose last line is the error
        return re.sub(r"^\w+: ", "", error.strip().splitlines()[-1])
    return error.split(" Currently supported types")[0].removeprefix("flag ")
