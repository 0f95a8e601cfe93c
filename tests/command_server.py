"""Runs commands of the package for the tests: each in a fork of a process that has imported the libraries already.

To import JAX and others takes a process seconds, and a command that is refused does nothing else. `tests/conftest.py`
starts this one. Each line of its input is a command, as JSON, and each line of its output a command's exit status.
"""

import gc
import importlib
import json
import os
import runpy
import sys

LIBRARIES = ("absl.app", "av", "flax.linen", "grain", "jax", "ml_collections.config_flags", "optax", "orbax.checkpoint")


def run(module: str, arguments: list[str], cwd: str, environment: dict[str, str], stdout: str, stderr: str) -> None:
    """Be `python -m module arguments` from here on."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, name in ((0, os.devnull), (1, stdout), (2, stderr)):
        opened = os.open(name, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # a fork does not look through all that was imported, least of all when it ends
    for line in sys.stdin:
        process = os.fork()
        if not process:
            run(**json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
