"""Orbax checkpoints of the train state together with the position in the data, written so as to survive anything."""

import contextlib
import errno
import gc
import logging as standard_logging
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from videogen_jax.training.manifests import Damaged, check_manifest, sync_folder, write_manifest
from videogen_jax.training.state import TrainState

# A checkpoint is written, and removed, under a name with this ending, and so is either whole under its number or not
# there. Orbax adds an ending of its own while it writes.
_PARTIAL = ".partial"
_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is exceeded",
    errno.EFBIG: "a file became larger than is allowed",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
}
_ORBAX_SECONDS = 10.0  # that threads of Orbax have to end in after a failure
_NONE_IS_GOOD, _NONE = -1, -2  # in the place of a step, between processes


class CannotSave(OSError):
    """A checkpoint could not be written; those before it are as they were."""


def check_retention(config: Any) -> None:
    """ValueError: `checkpoint_every`, `keep_checkpoints` or `keep_every` cannot work; it names the field."""
    check_least(config, 1, "checkpoint_every", "keep_checkpoints")
    check_least(config, 0, "keep_every")
    if config.keep_every % config.checkpoint_every:
        raise ValueError(
            f"config.keep_every is {config.keep_every}, which is not a multiple of config.checkpoint_every, "
            f"{config.checkpoint_every}; only steps that have a checkpoint can be kept"
        )


def check_least(config: Any, least: int, *names: str) -> None:
    """ValueError: a field is below `least`."""
    for name in names:
        if config[name] < least:
            raise ValueError(f"config.{name} is {config[name]}; it must be at least {least}")


class Checkpoints:
    """Numbered checkpoints under `workdir/checkpoints`.

    A checkpoint holds the parameters, their moving average, the optimizer's state, the step, and the position in the
    data as it was before the next batch is drawn. Saving is asynchronous: `save` returns when the arrays have been
    copied, threads write them, then their manifest (see `manifests`), and last the folder gets its number for a name.
    Nothing older is removed before that.

    Of several processes, which must share the file system, each writes its part of the arrays; the first does the rest.

    Args:
      workdir: of the run.
      keep: checkpoints that stay, the newest.
      keep_every: checkpoints of steps that are multiples of it stay too; 0 for none.
    """

    def __init__(self, workdir: str | Path, keep: int = 2, keep_every: int = 0):
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._keep, self._keep_every = keep, keep_every
        self._first = jax.process_index() == 0
        with _quiet_orbax():
            self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[int] | None = None
        self._saved: int | None = None  # the step last saved or restored; folders of later steps are not to be trusted
        self._tidied = self._failed = False
        self._hook, self._former_hook = _without_late_writes(sys.unraisablehook), sys.unraisablehook
        sys.unraisablehook = self._hook

    @property
    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, in order; damaged ones are not told apart."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir())

    @property
    def latest(self) -> int | None:
        """The newest step, or None."""
        return max(self.steps, default=None)

    def save(self, state: TrainState, position: Any) -> None:
        """Begins to write a checkpoint of `state.step`, after the one under way, unless there is one already.

        Args:
          state: may be donated to the next step when this returns.
          position: in the data, as JSON.

        Raises:
          CannotSave: this one, or the one that was under way, cannot be written.
        """
        self.wait()
        step = int(state.step)
        if step == self._saved:
            return
        partial = self.folder / f"{step}{_PARTIAL}"
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave({"position": position}))
        try:
            if self._first:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._tidy()
            with contextlib.ExitStack() as quiet:
                quiet.enter_context(_quiet_orbax())
                self._orbax.save(partial, args=items)
                until_finished = quiet.pop_all()  # its threads may fail at any time
        except Exception as error:  # Orbax and TensorStore raise what they like
            raise self._given_up(partial, error) from error
        self._saving = self._thread.submit(self._finish, step, partial, until_finished)

    def raise_if_failed(self) -> None:
        """Raises CannotSave if what is being written has failed by now."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written any more. Raises CannotSave if that failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            self._saved = saving.result()

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, Any]:
        """The state and the position in the data, of `step` or of the newest checkpoint that is not damaged.

        `abstract` gives shapes, types and shardings. The shardings need not be those that it was saved with, nor the
        devices, their number or kind, nor the number of processes.

        Raises:
          ValueError: if there is no checkpoint, none of that step, none that is not damaged, or if it does not fit
            `abstract`.
        """
        step = self._newest_good() if step is None else self._good(step)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        try:
            with _quiet_orbax():
                restored = self._orbax.restore(self.folder / str(step), args=items)
        except (ValueError, KeyError, TypeError) as error:  # its files are good, see above
            raise ValueError(
                f"the checkpoint {self.folder / str(step)} does not fit this config; set what was changed in it back, "
                f"or train in another --workdir. Orbax says: {error}"
            ) from error
        self._saved = step
        logging.info("Restored step %d from %s", step, self.folder)
        return restored["state"], restored["data"]["position"]

    def close(self) -> None:
        """Waits for what is under way; says in the log, and does not raise, if that fails. To be called once."""
        try:
            self.wait()
            with _quiet_orbax():
                self._orbax.close()
            if sys.unraisablehook is self._hook and not self._failed:
                sys.unraisablehook = self._former_hook
        except CannotSave as error:
            logging.error("%s", error)
        self._thread.shutdown()

    def _newest_good(self) -> int:
        """Passes over damaged checkpoints. The first process looks, and the others are told."""
        found = _NONE_IS_GOOD if self.steps else _NONE
        if self._first:
            for step in reversed(self.steps):
                try:
                    check_manifest(self.folder / str(step), step)
                except Damaged as damage:
                    logging.warning("The checkpoint of step %d is damaged and passed over: %s", step, damage)
                else:
                    found = step
                    break
        found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        if found == _NONE:
            raise ValueError(f"there is no checkpoint in {self.folder}")
        if found == _NONE_IS_GOOD:
            raise ValueError(
                f"none of the checkpoints in {self.folder} is good; the log says what is wrong with each. "
                "To begin anew, move that folder away or train in another --workdir"
            )
        return found

    def _good(self, step: int) -> int:
        if step not in self.steps:
            known = ", ".join(map(str, self.steps)) or "none"
            raise ValueError(f"there is no checkpoint of step {step} in {self.folder}; there are those of {known}")
        try:
            check_manifest(self.folder / str(step), step)
        except Damaged as damage:
            raise ValueError(f"the checkpoint of step {step} is damaged: {damage}") from damage
        return step

    def _finish(self, step: int, partial: Path, quiet: contextlib.ExitStack) -> int:
        """In a thread of its own: all after the arrays have been copied."""
        try:
            with quiet:
                self._orbax.wait_until_finished()
            if self._first:
                write_manifest(partial, step)
                partial.rename(self.folder / str(step))
                sync_folder(self.folder)
        except Exception as error:  # as in save
            raise self._given_up(partial, error) from error
        logging.info("Saved step %d", step)
        if self._first:
            self._prune(step)
        return step

    def _given_up(self, partial: Path, error: Exception) -> CannotSave:
        """The error to raise, when what was half written has been removed."""
        self._failed = True
        _let_orbax_fail()
        if self._first:
            for path in self.folder.glob(partial.name + "*"):
                shutil.rmtree(path, ignore_errors=True)
        return CannotSave(f"cannot save a checkpoint into {self.folder}: {_reason(error)}")

    def _tidy(self) -> None:
        """Once a run, before its first checkpoint: removes what a killed run left half written, and what is damaged.

        Restoring passed over the folders of later steps. They would stand in the way of checkpoints of the same steps.
        """
        if self._tidied:
            return
        self._tidied = True
        for path in self.folder.glob(f"*{_PARTIAL}*"):
            logging.info("Removing %s, which was not written to its end", path)
            shutil.rmtree(path)
        for step in self.steps:
            if step > (-1 if self._saved is None else self._saved):
                logging.warning("Removing %s, which is damaged", self.folder / str(step))
                self._remove(step)

    def _prune(self, newest: int) -> None:
        """Removes what need not be kept any longer, now that there is a checkpoint of the step `newest`."""
        steps = [step for step in self.steps if step <= newest]
        for step in steps[: -self._keep]:
            if not self._keep_every or step % self._keep_every:
                self._remove(step)

    def _remove(self, step: int) -> None:
        partial = self.folder / f"{step}{_PARTIAL}"
        (self.folder / str(step)).rename(partial)
        shutil.rmtree(partial)


def abstract_state(shapes: TrainState, shardings: Any) -> TrainState:
    """Shapes with the shardings to restore onto."""
    return jax.tree.map(lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes, shardings)


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Within it Orbax logs warnings and errors only, not twenty lines a checkpoint.

    Its threads' errors come without their tracebacks, which would hide what is said of them here.
    """

    def shorten(record: standard_logging.LogRecord) -> bool:
        if _is_not_of_orbax(record):
            return True
        record.exc_info = record.exc_text = None
        return record.levelno >= standard_logging.WARNING

    logger = standard_logging.getLogger("absl")
    logger.addFilter(shorten)
    try:
        yield
    finally:
        logger.removeFilter(shorten)


def _let_orbax_fail() -> None:
    """Waits for the threads of Orbax that still write what has been given up, and keeps quiet what becomes of them.

    They would write into a folder that has been removed, and tell of it below the reason that was given.
    """
    standard_logging.getLogger("absl").addFilter(_is_not_of_orbax)  # the same filter is not added twice
    standard_logging.getLogger("asyncio").addFilter(_is_not_left_over)
    warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)
    until = time.monotonic() + _ORBAX_SECONDS
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax.") and thread is not threading.current_thread():
            with contextlib.suppress(Exception):  # Orbax's threads raise here what they have failed with
                thread.join(max(0.0, until - time.monotonic()))
    gc.collect()  # what they left behind is told of when it is freed


def _is_not_of_orbax(record: standard_logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


def _is_not_left_over(record: standard_logging.LogRecord) -> bool:
    return "never retrieved" not in record.getMessage()


def _without_late_writes(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """`hook`, which does not tell of arrays that are written, or fail to be, after Orbax has given up a checkpoint.

    When one array cannot be written Orbax closes its event loop at once; TensorStore, still writing the others, finds
    it closed and prints a traceback for each. What failed first is raised anyway.
    """

    def shown(unraisable: Any) -> None:
        if unraisable.exc_type is not RuntimeError or str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return shown


def _reason(error: BaseException) -> str:
    """Why something could not be written, in a few words; TensorStore tells the number of the error in its text."""
    for cause in _chain(error):
        number = getattr(cause, "errno", None)
        if number is None:
            number = next(
                (n for n in _REASONS if errno.errorcode[n] in str(cause) or os.strerror(n) in str(cause)), None
            )
        if number is not None:
            return _REASONS.get(number, os.strerror(number))
    return f"{type(error).__name__}: {error}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
