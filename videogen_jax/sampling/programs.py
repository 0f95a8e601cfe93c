"""Programs compiled in background threads while the first ones already run."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor, wait
from typing import Any, Protocol

import jax
import jax.export
from absl import logging

from videogen_jax.runtime.executables import Executables, Stored, shapes_of

POLL_SECONDS = 0.2  # between two calls of `waiting`


class Store(Protocol):
    """Where exported programs are: `videogen_jax.sampling.exported.StoredPrograms`."""

    def load(self, key: tuple) -> jax.export.Exported | None:
        """The program of a key, or None where there is none."""


class _Abandoned(Exception):
    """Tracing was abandoned: the caller has finished."""


class _Program:
    """One program: the shapes of its results once it is traced, and its executable once it is compiled."""

    def __init__(self) -> None:
        self.claimed = False  # whether a thread has begun to trace it
        self.shapes: Future = Future()
        self.executable: Future = Future()

    @property
    def failed(self) -> bool:
        """Whether tracing or compiling it has raised, or was cancelled."""
        future = self.executable
        return future.cancelled() or (future.done() and future.exception() is not None)

    def fail(self, error: BaseException) -> None:
        for future in (self.shapes, self.executable):
            with contextlib.suppress(InvalidStateError):  # it has been cancelled
                future.set_exception(error)


class Programs:
    """Functions compiled once for each key, side by side.

    Tracing and compiling take longer than running on a first call. All shapes follow from those of the inputs, so one
    thread goes through the programs in their order and traces them (`prepare`), a pool compiles what has been traced,
    and the caller runs each as soon as it is compiled (`run`).

    Args:
      workers: programs that are compiled at the same time.
      store: programs that need no tracing; one that it lacks is traced, and the log says so.
      executables: compiled programs of earlier processes, which need neither tracing nor compiling; what is compiled
        here is kept there.
    """

    def __init__(self, workers: int = 2, store: Store | None = None, executables: Executables | None = None):
        self._store, self.executables = store, executables
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="compile")
        self._programs: dict[tuple, _Program] = {}
        self._lock = threading.Lock()
        self._walk: threading.Thread | None = None

    @contextlib.contextmanager
    def prepared_by(self, walk: Callable[[Callable], None]) -> Iterator[None]:
        """Prepare programs in a thread of their own while the block runs them; what is not begun at its end is dropped.

        Args:
          walk: called with `prepare`, which it calls for each program in order. What it raises is logged; the block
            then prepares programs by itself.
        """
        abandoned, errors = threading.Event(), []

        def prepare(*args: Any, **kwargs: Any) -> Any:
            if abandoned.is_set():
                raise _Abandoned
            return self.prepare(*args, **kwargs)

        def run() -> None:
            try:
                walk(prepare)
            except _Abandoned:
                pass
            except Exception as error:
                errors.append(error)

        self._walk = threading.Thread(target=run, name="trace", daemon=True)
        self._walk.start()
        try:
            yield
        finally:
            abandoned.set()
            self._walk = None
            self.cancel()
        if errors:  # the block has prepared the rest by itself, and what it made stays
            logging.error("Programs could not be prepared ahead: %s", errors[0], exc_info=errors[0])

    def prepare(self, key: tuple, function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> Any:
        """Trace `function` for arguments like `args` and start compiling it, unless that is done or under way already.

        Args:
          key: of the program; its first entry names it in profiles and in the compilation cache.
          function: pure, of arrays.
          *args: arrays or `jax.ShapeDtypeStruct`, in any trees.
          donate: positions of arguments whose buffers the program may take for its results.

        Returns: the shapes of its results, as `jax.ShapeDtypeStruct`.

        Raises: what tracing raises.
        """
        with self._lock:
            program = self._programs.setdefault(key, _Program())
            is_new, program.claimed = not program.claimed, True
        if is_new:
            stored = self._find(key, args)
            if stored is not None:
                program.shapes.set_result(stored.shapes)
                self._pool.submit(self._load, program, stored, key, function, args, donate)
            else:
                try:
                    traced = self._trace(key, function, args, donate)
                except BaseException as error:
                    program.fail(error)
                    raise
                program.shapes.set_result(traced.out_info)
                self._pool.submit(self._compile, program, traced, key, shapes_of(args))
        return program.shapes.result()

    def run(
        self,
        key: tuple,
        function: Callable,
        *args: Any,
        donate: tuple[int, ...] = (),
        waiting: Callable[[], None] | None = None,
    ) -> Any:
        """Run the program of a key as soon as it is compiled.

        Args:
          key, function, args, donate: as `prepare`'s, with arrays. Where no other thread prepares programs, this does.
          waiting: called every POLL_SECONDS until the program is compiled; what it raises ends the waiting.

        Raises: what tracing or compiling the program raises.
        """
        with self._lock:
            program = self._programs.setdefault(key, _Program())
        while not program.executable.done():
            walk = self._walk
            if not program.claimed and (walk is None or not walk.is_alive()):
                self.prepare(key, function, *args, donate=donate)
            if not wait([program.executable], POLL_SECONDS).done and waiting is not None:
                waiting()
        return program.executable.result()(*args)

    def wait(self) -> None:
        """Wait until everything that is prepared is compiled. Raises what compiling raised."""
        for program in list(self._programs.values()):
            program.executable.result()

    def cancel(self) -> None:
        """Drop what is not compiled yet: nothing starts any more, and what failed is tried anew when next prepared."""
        with self._lock:
            for program in self._programs.values():
                program.executable.cancel()
            self._programs = {key: program for key, program in self._programs.items() if not program.failed}

    def __len__(self) -> int:
        return len(self._programs)

    def _find(self, key: tuple, args: tuple) -> Stored | None:
        """The program's executable, where an earlier process has kept it."""
        return None if self.executables is None else self.executables.find(key, args)

    def _trace(self, key: tuple, function: Callable, args: tuple, donate: tuple[int, ...]) -> jax.stages.Traced:
        return jax.jit(self._named(key, function), donate_argnums=donate).trace(*args)

    def _named(self, key: tuple, function: Callable) -> Callable:
        """What is compiled for a key: the stored program, or else the function, under the name of the key."""
        exported = None if self._store is None else self._store.load(key)
        if self._store is not None and exported is None:
            logging.warning("The program %s was not exported; tracing it", key)

        def program(*args):
            return function(*args) if exported is None else exported.call(*args)

        program.__name__ = program.__qualname__ = str(key[0])
        return program

    def _compile(self, program: _Program, traced: jax.stages.Traced, key: tuple, args: Any) -> None:
        """Compile a program, for arguments of the shapes `args`, and keep it for later processes."""
        if not program.executable.set_running_or_notify_cancel():
            return
        try:
            compiled = traced.lower().compile()
            program.executable.set_result(compiled)
        except BaseException as error:
            program.fail(error)
            return
        if self.executables is not None:
            self.executables.keep(key, args, compiled, traced.out_info)

    def _load(
        self, program: _Program, stored: Stored, key: tuple, function: Callable, args: tuple, donate: tuple[int, ...]
    ) -> None:
        """Load a program; where that fails, trace and compile it."""
        if program.executable.cancelled():
            return
        try:
            loaded = stored.load()
        except ValueError as error:
            logging.warning("%s; compiling it", error)
            try:
                traced = self._trace(key, function, args, donate)
            except BaseException as error:
                program.fail(error)
                return
            self._compile(program, traced, key, shapes_of(args))
            return
        if program.executable.set_running_or_notify_cancel():
            program.executable.set_result(loaded)
