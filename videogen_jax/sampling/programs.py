"""Compiled programs, made in the background while the first of them run already."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

import jax
import jax.export
from absl import logging

WAITING = 0.2  # seconds


class Store(Protocol):
    """Where programs are that were traced ahead of time: `videogen_jax.sampling.exported.StoredPrograms`."""

    def load(self, key: tuple) -> jax.export.Exported | None:
        """The program of a key, or None where there is none."""


class Programs:
    """Functions compiled once for each key, side by side.

    Tracing and compiling take longer than running on a first call; since all shapes are known beforehand, later
    programs are compiled while earlier ones run.

    Args:
      workers: programs that are compiled at the same time.
      store: programs that need no tracing; one that it lacks is traced, and the log says so.
    """

    def __init__(self, workers: int = 2, store: Store | None = None):
        self._store = store
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="compile")
        self._compiled: dict[tuple, Future] = {}

    def prepare(self, key: tuple, function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> None:
        """Starts compiling `function` for arguments like `args` (arrays or `jax.ShapeDtypeStruct`), once a key.

        The first entry of the key names the program in profiles and in the compilation cache.
        donate: positions of arguments whose buffers the program may take for its results.
        """
        if key in self._compiled:
            return

        def compiled() -> jax.stages.Compiled:
            program = self._program(key, function, args, donate)
            return jax.jit(program, donate_argnums=donate).lower(*args).compile()

        self._compiled[key] = self._pool.submit(compiled)

    def _program(self, key: tuple, function: Callable, args: tuple, donate: tuple[int, ...]) -> Callable:
        """What is compiled for a key: the stored program, or else the function, under the name of the key."""
        exported = None if self._store is None else self._store.load(key)
        if self._store is not None and exported is None:
            logging.warning("The program %s was not exported: it is traced", key)

        def program(*args):
            return function(*args) if exported is None else exported.call(*args)

        program.__name__ = program.__qualname__ = str(key[0])
        return program

    def run(self, key: tuple, *args: Any, waiting: Callable[[], None] | None = None) -> Any:
        """Runs the program of a key when it is compiled; what went wrong in compiling is raised here.

        waiting: called every WAITING seconds until it is compiled; what it raises ends the waiting.
        """
        future = self._compiled[key]
        while waiting is not None and not wait([future], WAITING).done:
            waiting()
        return future.result()(*args)

    def cancel(self) -> None:
        """Drops what is not compiled yet: nothing starts any more, and what failed is tried anew when next prepared."""
        for future in self._compiled.values():
            future.cancel()
        self._compiled = {
            key: future
            for key, future in self._compiled.items()
            if not future.cancelled() and not (future.done() and future.exception())
        }

    def __len__(self) -> int:
        return len(self._compiled)
