"""Being told to stop: SIGTERM, by which clusters take a machine back, and SIGINT, by which people do.

This module imports nothing heavy, so that the handlers can be there from the start.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, Self

PREEMPTED = 75  # exit status: EX_TEMPFAIL of sysexits.h, "try again later"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Schedulers may signal a whole group of processes and a parent of them that passes the signal on.
_SAME = 1.0  # seconds within which a signal that comes again is taken for one


class Preempted(RuntimeError):
    """Training has stopped since it was told to; all that it did is saved.

    Attributes:
      signal: by which it was told.
    """

    def __init__(self, step: int, signal_number: int):
        self.signal = signal.Signals(signal_number)
        super().__init__(f"{self.signal.name} at step {step}, which is saved; started again, training goes on from it")

    @property
    def status(self) -> int:
        """The exit status: launchers start again what was preempted, but not what a person has stopped."""
        return 128 + signal.SIGINT if self.signal == signal.SIGINT else PREEMPTED


def exit_when_told() -> None:
    """Until training begins there is nothing to save: SIGTERM ends the process, with the status `PREEMPTED`.

    To be called before jax.distributed starts, whose own handler has to replace this one.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(PREEMPTED))


class Preemption:
    """Knows whether to stop, within a `with` statement; a second signal there ends the process at once.

    Of several processes all stop at the same step, when one of them has got SIGTERM; that is agreed by JAX's
    preemption service, to whose handler SIGTERM is left, so the second signal is not heard there.

    Outside the main thread, which alone may handle signals, it hears none.

    Args:
      process_count: of JAX.
    """

    def __init__(self, process_count: int = 1):
        self._alone = process_count == 1
        self._stack = contextlib.ExitStack()
        self._heard: tuple[int, float] | None = None
        self.signal = int(signal.SIGTERM)

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        # What Python calls for a signal runs between two of its instructions, which a compilation delays by minutes.
        # The number itself is written into a pipe at once, where a thread reads it.
        read, write = os.pipe()
        os.set_blocking(write, False)
        former = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        listener = threading.Thread(target=self._listen, args=(read,), name="signals", daemon=True)
        self._stack.callback(os.close, read)
        self._stack.callback(listener.join)
        self._stack.callback(os.close, write)
        self._stack.callback(signal.set_wakeup_fd, former)
        for number in _SIGNALS if self._alone else (signal.SIGINT,):
            self._stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        listener.start()
        return self

    def __exit__(self, *unused: Any) -> None:
        self._stack.close()

    def requested(self, step: int) -> bool:
        """Whether to stop now. To be asked once after every step, by all processes."""
        if self._alone:
            return self._heard is not None
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)

    def _listen(self, pipe: int) -> None:
        while received := os.read(pipe, 1):
            number = received[0]
            if number not in _SIGNALS:
                continue
            if self._heard is None:
                self._heard, self.signal = (number, time.monotonic()), number
                if not self._alone:
                    os.kill(os.getpid(), signal.SIGTERM)
                name = signal.Signals(number).name
                print(f"{name}: stopping after this step, with a checkpoint; again: at once", file=sys.stderr)
            elif time.monotonic() - self._heard[1] > _SAME:
                os._exit(128 + number)
