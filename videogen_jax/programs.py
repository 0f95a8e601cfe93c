"""Compiled programs, made in the background while the first of them run already."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax

WAITING = 0.2  # seconds


class Programs:
    """Functions compiled once for each key, side by side.

    Tracing and compiling take longer than running on a first call; since all shapes are known beforehand, later
    programs are compiled while earlier ones run.

    Args:
      workers: programs that are compiled at the same time.
    """

    def __init__(self, workers: int = 2):
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="compile")
        self._compiled: dict[tuple, Future] = {}

    def prepare(self, key: tuple, function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> None:
        """Starts compiling `function` for arguments like `args` (arrays or `jax.ShapeDtypeStruct`), once a key.

        The first entry of the key names the program in profiles and in the compilation cache.
        donate: positions of arguments whose buffers the program may take for its results.
        """
        if key in self._compiled:
            return

        def program(*args):
            return function(*args)

        program.__name__ = program.__qualname__ = str(key[0])
        self._compiled[key] = self._pool.submit(lambda: jax.jit(program, donate_argnums=donate).lower(*args).compile())

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
