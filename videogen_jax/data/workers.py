"""Work on files that may be broken: in processes of its own, which may crash or hang without harm to this one."""

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
      function: called in a worker; it and what goes in and out must be picklable.
      count: processes.
      time_limit: seconds that one call may take before its process is killed.
    """

    def __init__(self, function: Callable[..., Any], count: int, time_limit: float):
        if count < 1:
            raise ValueError(f"the number of decoding processes is {count}; it must be at least 1")
        self._function, self._count, self._time_limit = function, count, time_limit
        # In sessions of their own, a signal to this process and its group does not reach them: ended by it, they would
        # leave good files behind as broken ones, and so change the data of the run that is saved and goes on later.
        self._pool = ProcessPool(max_workers=count, context=multiprocessing.get_context("spawn"), initializer=os.setsid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    def close(self) -> None:
        """Kills what still runs."""
        self._pool.stop()
        self._pool.join()

    def submit(self, *arguments: Any) -> ProcessFuture:
        return self._pool.schedule(self._function, args=arguments, timeout=self._time_limit)

    def result(self, future: ProcessFuture) -> Any:
        """What the function returned. BadVideo: it raised, took too long, or its process died."""
        try:
            return future.result()
        except FutureTimeout as error:
            raise BadVideo(f"decoding took longer than {self._time_limit:g} s") from error
        except ProcessExpired as error:
            raise BadVideo(f"the decoder crashed (exit code {error.exitcode})") from error
        except (BadVideo, BadItem) as error:
            raise BadVideo(str(error)) from error
        except Exception as error:  # one file's trouble, whatever it is
            raise BadVideo(f"{type(error).__name__}: {error}") from error

    def map(self, tasks: Iterable[tuple[Any, ...] | BadVideo]) -> Iterator[Any]:
        """What the function returned for each task (its arguments), or the BadVideo, in order, a few of them ahead.

        A task that is a BadVideo already comes out as it is.
        """
        waiting: deque[ProcessFuture | BadVideo] = deque()
        for task in tasks:
            waiting.append(task if isinstance(task, BadVideo) else self.submit(*task))
            if len(waiting) > 2 * self._count:
                yield self._outcome(waiting.popleft())
        while waiting:
            yield self._outcome(waiting.popleft())

    def _outcome(self, waiting: ProcessFuture | BadVideo) -> Any:
        try:
            return waiting if isinstance(waiting, BadVideo) else self.result(waiting)
        except BadVideo as error:
            return error
