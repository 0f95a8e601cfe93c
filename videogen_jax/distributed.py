"""Several processes, started by a cluster or by hand."""

import os
import re

import jax

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize() -> tuple[int, int]:
    """Joins the processes of this run, and gives this one's number and theirs.

    On a TPU pod, under Slurm and the like jax.distributed finds the others by itself; elsewhere the environment names
    them: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      ValueError: only some of the variables are set, or not to numbers, or the others were not found.
    """
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if given and len(given) < len(VARIABLES):
        missing = ", ".join(name for name in VARIABLES if name not in given)
        raise ValueError(f"{missing} must be set too, as {next(iter(given))} is")
    try:
        if given:
            address, count, index = given.values()
            jax.distributed.initialize(address, int(count), int(index))
        else:
            jax.distributed.initialize()
    except RuntimeError as error:
        raise ValueError(f"jax.distributed cannot start: {error}") from error
    return jax.process_index(), jax.process_count()


def parse_shard(text: str | None) -> tuple[int, int]:
    """ "3/16" -> (3, 16); None -> (0, 1). ValueError: it is neither."""
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"--shard is {text!r}; it must be i/n with i from 0 to n - 1")
    return int(match[1]), int(match[2])
