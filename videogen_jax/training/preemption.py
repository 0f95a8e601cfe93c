"""Stopping on a signal: SIGTERM, sent by a cluster that takes a machine back, and SIGINT, sent by a person.

This module imports nothing heavy, so that the handlers can be installed from the start.
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
# Schedulers may signal a whole group of processes, and a parent of them that passes the signal on.
_REPEAT_SECONDS = 1.0  # within which a second signal counts as the same one


class Preempted(RuntimeError):
    """Training has stopped on a signal, with a checkpoint of its last step.

    Attributes:
      signal: which one.
    """

    def __init__(self, step: int, signal_number: int):
        self.signal = signal.Signals(signal_number)
        super().__init__(f"{self.signal.name} at step {step}, which is saved; started again, training resumes from it")

    @property
    def status(self) -> int:
        """The exit status: launchers restart what was preempted, but not what a person has stopped."""
        return 128 + signal.SIGINT if self.signal == signal.SIGINT else PREEMPTED


def exit_on_sigterm() -> None:
    """Let SIGTERM end the process with the status `PREEMPTED`, until training starts: before, there is nothing to save.

    To be called before jax.distributed starts, whose own handler has to replace this one.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(PREEMPTED))


class Preemption:
    """Whether a signal asks to stop; a context manager, in which a second signal ends the process at once.

    Several processes all stop at the same step after one of them got SIGTERM. They agree on it by JAX's preemption
    service, which handles SIGTERM itself, so a second one has no effect there.

    Only the main thread may handle signals; in another one this has no effect.

    Args:
      process_count: of JAX.
    """

    def __init__(self, process_count: int = 1):
        self._single_process = process_count == 1
        self._stack = contextlib.ExitStack()
        self._received: tuple[int, float] | None = None  # the first signal, and when
        self.signal = int(signal.SIGTERM)

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        # A handler in Python runs between two of its instructions, which a compilation delays by minutes. The number of
        # the signal is written into a pipe at once, from which a thread reads it.
        read, write = os.pipe()
        os.set_blocking(write, False)
        former = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        listener = threading.Thread(target=self._listen, args=(read,), name="signals", daemon=True)
        self._stack.callback(os.close, read)
        self._stack.callback(listener.join)
        self._stack.callback(os.close, write)
        self._stack.callback(signal.set_wakeup_fd, former)
        for number in _SIGNALS if self._single_process else (signal.SIGINT,):
            self._stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        listener.start()
        return self

    def __exit__(self, *unused: Any) -> None:
        self._stack.close()

    def requested(self, step: int) -> bool:
        """Return whether to stop now. To be called once after every step, by all processes."""
        if self._single_process:
            return self._received is not None
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)

    def _listen(self, pipe: int) -> None:
        while received := os.read(pipe, 1):
            number = received[0]
            if number not in _SIGNALS:
                continue
            if self._received is None:
                self._received, self.signal = (number, time.monotonic()), number
                if not self._single_process:
                    os.kill(os.getpid(), signal.SIGTERM)
                name = signal.Signals(number).name
                print(f"{name}: stopping after this step, with a checkpoint; again: at once", file=sys.stderr)
            elif time.monotonic() - self._received[1] > _REPEAT_SECONDS:
                os._exit(128 + number)
