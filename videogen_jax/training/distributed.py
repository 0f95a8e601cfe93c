"""Runs of several processes, started by a cluster, by a launcher or by hand."""

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
HEARTBEAT_SECONDS = 30  # a process that has not been heard from for so long is lost, and the others end
LOST = 76  # exit status of a process that ends because another has


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> tuple[int, int]:
    """Join the processes of this run.

    On a TPU pod, under Slurm and the like jax.distributed finds the others by itself; elsewhere the arguments describe
    them, or the environment: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Args:
      coordinator: host:port of process 0.
      num_processes: how many there are.
      process_id: the number of this one, from 0.
      heartbeat_seconds: a process that has not been heard from for so long is lost, and the others end.

    Returns: the number of this process, and how many there are.

    Raises:
      ValueError: only some of the three are set, they do not fit each other, or the others were not found.
    """
    description = _described_processes(coordinator, num_processes, process_id)
    # The time-out of the shutdown stays: a process that is done waits there for the others, which may be reading back a
    # large checkpoint, or preparing the longer part of a data set.
    settings = {"heartbeat_timeout_seconds": heartbeat_seconds}
    known = inspect.signature(jax.distributed.initialize).parameters  # their names differ between releases of JAX
    settings = {name: value for name, value in settings.items() if name in known}
    try:
        jax.distributed.initialize(*description, **settings)
    except RuntimeError as error:
        raise ValueError(f"jax.distributed cannot start: {error}") from error
    return jax.process_index(), jax.process_count()


def initialize_if_configured(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> tuple[int, int]:
    """As `initialize` if the arguments or the environment (`is_multi_process`) call for it; else (0, 1)."""
    arguments = (coordinator, num_processes, process_id)
    if any(value is not None for value in arguments) or is_multi_process():
        return initialize(*arguments, heartbeat_seconds)
    return 0, 1


def is_multi_process() -> bool:
    """Whether the environment describes several processes.

    It does by JAX's variables, by Slurm or MPI with more than one task, and by TPUs, which may be part of a pod.
    """
    if any(os.environ.get(name) for name in VARIABLES):
        return True
    tasks = [os.environ.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")]
    # Slurm sets the number of tasks in an allocation's own shell too, which is none of them.
    if (tasks[0] != "1" and "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ) or tasks[1] != "1":
        return True
    platforms = os.environ.get("JAX_PLATFORMS", "tpu")
    return "tpu" in platforms.split(",") and importlib.util.find_spec("libtpu") is not None and _has_tpu()


def _has_tpu() -> bool:
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return "," in hosts or bool(glob.glob("/dev/accel[0-9]*")) or bool(glob.glob("/dev/vfio/[0-9]*"))


def _described_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> tuple:
    """Return coordinator, number of processes and number of this one, from the arguments or else the environment.

    An empty tuple leaves it to jax.distributed to find them.
    """
    flags = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    values, names = {name: value for name, value in flags.items() if value is not None}, tuple(flags)
    if not values:
        values, names = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}, VARIABLES
    if not values:
        return ()
    if len(values) < len(names):
        missing = ", ".join(name for name in names if name not in values)
        raise ValueError(f"{missing} must be set too, as {next(iter(values))} is")
    address, *numbers = (values[name] for name in names)
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
    """End this process at once if it fails inside while there are others, as a normal exit would wait for them.

    The others then fail too, in a step that they share with it or because its heartbeat is missing: with status `LOST`.
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
            f"why, or its own device failed. Started again, the run resumes from its last checkpoint. ({reason})",
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
    """Read --shard: "3/16" -> (3, 16), None -> (0, 1).

    Raises:
      ValueError: it is not i/n with i below n.
    """
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"--shard is {text!r}; it must be i/n with i from 0 to n - 1")
    return int(match[1]), int(match[2])
