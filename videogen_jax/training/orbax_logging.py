"""What Orbax and its threads print, reduced to what a user can act on.

Orbax logs twenty lines a checkpoint. When an array cannot be written, its threads and TensorStore print a traceback
for each of the others too, which would hide the one sentence that says what failed (`checkpoints.CannotSave`).
"""

import contextlib
import gc
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_JOIN_SECONDS = 10.0  # that Orbax's threads have to end in after a failure


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Within it Orbax logs warnings and errors only, without tracebacks."""

    def shorten(record: logging.LogRecord) -> bool:
        if _is_not_of_orbax(record):
            return True
        record.exc_info = record.exc_text = None
        return record.levelno >= logging.WARNING

    logger = logging.getLogger("absl")
    logger.addFilter(shorten)
    try:
        yield
    finally:
        logger.removeFilter(shorten)


def abandon_orbax_threads() -> None:
    """Wait for the threads that still write a checkpoint that has been given up, and silence what they say from now on.

    They write into a folder that is about to be removed, and would report that after the reason of the failure.
    """
    logging.getLogger("absl").addFilter(_is_not_of_orbax)  # the same filter is not added twice
    logging.getLogger("asyncio").addFilter(_is_retrieved)
    warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)
    deadline = time.monotonic() + _JOIN_SECONDS
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax.") and thread is not threading.current_thread():
            with contextlib.suppress(Exception):  # join of Orbax's threads raises what they have failed with
                thread.join(max(0.0, deadline - time.monotonic()))
    gc.collect()  # what they left behind is reported when it is freed


def without_late_writes(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap a `sys.unraisablehook` such that arrays written after Orbax has given up a checkpoint are not reported.

    When one array cannot be written Orbax closes its event loop at once; TensorStore, still writing the others, finds
    it closed and prints a traceback for each. The first failure is raised anyway.
    """

    def filtered(unraisable: Any) -> None:
        if unraisable.exc_type is not RuntimeError or str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return filtered


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


def _is_retrieved(record: logging.LogRecord) -> bool:
    return "never retrieved" not in record.getMessage()
