"""Runs commands of the package for the tests: each in a fork of a process that has imported the libraries already.

To import JAX and others takes a process seconds, and a command that is refused does nothing else. A program that needs
a certain number of devices runs in a fork too, since JAX starts there. `tests/conftest.py` starts this one. Each line
of its input is a command, as JSON, and each line of its output a command's exit status.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import sys
import threading
import traceback

LIBRARIES = ("absl.app", "av", "flax.linen", "grain", "jax", "ml_collections.config_flags", "optax", "orbax.checkpoint")


def run(module: str, arguments: list[str], cwd: str, environment: dict[str, str], stdout: str, stderr: str) -> int:
    """Be `python -m module arguments` from here on, up to the exit status; as of python, a module "-c" is code."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, name in ((0, os.devnull), (1, stdout), (2, stderr)):
        opened = os.open(name, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = [module, *arguments]
    status = 0
    try:
        if module == "-c":
            sys.argv[1:] = arguments[1:]
            exec(arguments[0], {"__name__": "__main__"})
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        status = stopped.code
        if not isinstance(status, int | None):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # as Python ends: waits for threads, then what was registered for the end
    atexit._run_exitfuncs()
    return status or 0


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.set_threshold(50_000, 50, 100)  # as in tests/conftest.py
    gc.freeze()  # the forks share its memory
    for line in sys.stdin:
        process = os.fork()
        if not process:
            status = run(**json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # to take all modules apart takes most of a second
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
