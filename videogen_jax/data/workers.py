"""Worker processes for reading files that may be broken: they may crash or hang without harm to this process."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Self

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from videogen_jax.data.decoding import BadVideo
from videogen_jax.data.entries import BadItem


class Workers:
    """A pool of processes that call one function, for use in a `with` statement.

    Args:
      function: called in a worker; the function, its arguments and its result must be picklable.
      count: number of processes.
      time_limit: seconds after which the process of a call is killed.
    """

    def __init__(self, function: Callable[..., Any], count: int, time_limit: float):
        if count < 1:
            raise ValueError(f"the number of decoding processes is {count}; it must be at least 1")
        self._function, self._count, self._time_limit = function, count, time_limit
        # Workers run in sessions of their own, so that a signal to this process's group does not reach them: files
        # that they were reading would be recorded as broken, which would change the data of the resumed run.
        self._pool = ProcessPool(max_workers=count, context=multiprocessing.get_context("spawn"), initializer=os.setsid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    def close(self) -> None:
        """Kill calls that are still running, and end the processes."""
        self._pool.stop()
        self._pool.join()

    def submit(self, *arguments: Any) -> ProcessFuture:
        return self._pool.schedule(self._function, args=arguments, timeout=self._time_limit)

    def result(self, future: ProcessFuture) -> Any:
        """Wait for the result of a call.

        Raises:
          BadVideo: the function raised an error or took too long, or its process died.
        """
        try:
            return future.result()
        except FutureTimeout as error:
            raise BadVideo(f"decoding took longer than {self._time_limit:g} s") from error
        except ProcessExpired as error:
            raise BadVideo(f"the decoder crashed (exit code {error.exitcode})") from error
        except (BadVideo, BadItem) as error:
            raise BadVideo(str(error)) from error
        except Exception as error:  # any error concerns this one file only
            raise BadVideo(f"{type(error).__name__}: {error}") from error

    def map(self, tasks: Iterable[tuple[Any, ...] | BadVideo]) -> Iterator[Any]:
        """Yield the result of each task, or its BadVideo, in order, with a few calls running ahead.

        Args:
          tasks: the arguments of each call; a BadVideo is passed through.
        """
        pending: deque[ProcessFuture | BadVideo] = deque()
        for task in tasks:
            pending.append(task if isinstance(task, BadVideo) else self.submit(*task))
            if len(pending) > 2 * self._count:
                yield self._outcome(pending.popleft())
        while pending:
            yield self._outcome(pending.popleft())

    def _outcome(self, pending: ProcessFuture | BadVideo) -> Any:
        try:
            return pending if isinstance(pending, BadVideo) else self.result(pending)
        except BadVideo as error:
            return error
