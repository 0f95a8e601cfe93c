"""Several processes, started by a cluster, by a launcher or by hand."""

import contextlib
import glob
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax

from videogen_jax.training.preemption import PREEMPTED

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
HEARTBEAT_SECONDS = 30  # without a sign of life of a process, after which the others end
LOST = 76  # exit status of a process that ends since another has


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> tuple[int, int]:
    """Joins the processes of this run, and gives this one's number and theirs.

    On a TPU pod, under Slurm and the like jax.distributed finds the others by itself; elsewhere they are named by the
    arguments, or by the environment: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID.

    Args:
      heartbeat_seconds: a process that has not been heard of for so long is gone, and the others end.

    Raises:
      ValueError: only some of the three are given, they do not fit each other, or the others were not found.
    """
    given = _given(coordinator, num_processes, process_id)
    # Not the time-out of the shutdown too: a process that is done waits there for the others, which may be reading back
    # a large checkpoint, or preparing the longer part of a data set.
    settings = {"heartbeat_timeout_seconds": heartbeat_seconds}
    known = inspect.signature(jax.distributed.initialize).parameters  # their names differ between releases of JAX
    settings = {name: value for name, value in settings.items() if name in known}
    try:
        jax.distributed.initialize(*given, **settings)
    except RuntimeError as error:
        raise ValueError(f"jax.distributed cannot start: {error}") from error
    return jax.process_index(), jax.process_count()


def initialize_if_told(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> tuple[int, int]:
    """As `initialize` where there may be other processes (`told` says where); else this process is the only one."""
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given) or told():
        return initialize(*given, heartbeat_seconds)
    return 0, 1


def told() -> bool:
    """Whether the environment speaks of several processes: JAX's variables, Slurm or MPI with more than one task, or
    the TPUs of a host, which may be one of many."""
    if any(os.environ.get(name) for name in VARIABLES):
        return True
    tasks = [os.environ.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")]
    # Slurm tells the number to an allocation's own shell too, which is no task of it.
    if (tasks[0] != "1" and "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ) or tasks[1] != "1":
        return True
    wanted = os.environ.get("JAX_PLATFORMS", "tpu")
    return "tpu" in wanted.split(",") and importlib.util.find_spec("libtpu") is not None and _has_tpu()


def _has_tpu() -> bool:
    named = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return "," in named or bool(glob.glob("/dev/accel[0-9]*")) or bool(glob.glob("/dev/vfio/[0-9]*"))


def _given(coordinator: str | None, num_processes: int | None, process_id: int | None) -> tuple:
    """The three that describe the processes, from arguments or the environment; empty: jax.distributed finds them."""
    flags = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    found, names = {name: value for name, value in flags.items() if value is not None}, tuple(flags)
    if not found:
        found, names = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}, VARIABLES
    if not found:
        return ()
    if len(found) < len(names):
        missing = ", ".join(name for name in names if name not in found)
        raise ValueError(f"{missing} must be given too, as {next(iter(found))} is")
    address, *numbers = (found[name] for name in names)
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):\d+", address):
        raise ValueError(f"{names[0]} is {address!r}; it must be host:port of process 0")
    for name, value in zip(names[1:], numbers, strict=True):
        if not re.fullmatch(r"\d+", str(value)):
            raise ValueError(f"{name} is {value!r}; it must be a number, 0 or more")
    count, index = (int(value) for value in numbers)
    if not index < count:
        raise ValueError(f"{names[2]} is {index}; of {count} processes ({names[1]}) it must be from 0 to {count - 1}")
    return address, count, index


@contextlib.contextmanager
def ending_together(num_processes: int) -> Iterator[None]:
    """Of several processes, one that fails inside ends at once and says why; the usual way out waits for the others.

    The others then fail too, in a step that they share with it or as its heartbeat stays away: with status `LOST`.
    """
    try:
        yield
    except SystemExit as stopped:
        if num_processes == 1 or stopped.code in (0, None, PREEMPTED):
            raise
        _leave(stopped.code if isinstance(stopped.code, int) else 1)
    except jax.errors.JaxRuntimeError as error:
        if num_processes == 1:
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        print(
            f"error: process {jax.process_index()} of {num_processes} stops: it has lost another one, whose log says "
            f"why, or its own device failed. Started again, the run goes on from its last checkpoint. ({reason})",
            file=sys.stderr,
        )
        _leave(LOST)
    except Exception:
        if num_processes == 1:
            raise
        traceback.print_exc()
        _leave(1)


def _leave(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def parse_shard(text: str | None) -> tuple[int, int]:
    """ "3/16" -> (3, 16); None -> (0, 1). ValueError: it is neither."""
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"--shard is {text!r}; it must be i/n with i from 0 to n - 1")
    return int(match[1]), int(match[2])
