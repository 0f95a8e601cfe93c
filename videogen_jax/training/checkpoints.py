"""Orbax checkpoints of the train state together with the position in the data, written so as to survive anything.

Orbax's `AsyncCheckpointer` copies the arrays and writes them from threads. Its `CheckpointManager`, and v1's
`Checkpointer` around it (as of 0.12.8), would number and prune checkpoints too, but do not serve here:

- They know no hashes: a file that was cut short or changed is found when it fails to parse, or never. The last hook
  before their commit comes too early to take hashes, as two more files are written after it.
- In `save`, and again from a thread with the number of an earlier step, they ask JAX's preemption service whether to
  stop; the service expects to be asked once after each step, in order, which the training loop does (`preemption`).

So the manifest with the hashes, the rename that commits a checkpoint, and the pruning are done here.
"""

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from videogen_jax.runtime.durable_files import sync_folder
from videogen_jax.training.manifests import Damaged, check_manifest, write_manifest
from videogen_jax.training.orbax_logging import abandon_orbax_threads, quiet_orbax, without_late_writes
from videogen_jax.training.state import TrainState

# A checkpoint is written, and removed, under a name with this ending, so a folder with a plain number is a whole one.
# While it writes Orbax adds an ending of its own.
_PARTIAL = ".partial"
_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is exceeded",
    errno.EFBIG: "a file became larger than is allowed",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
}
_ALL_DAMAGED, _NONE = -1, -2  # sent between processes in the place of a step


class CannotSave(OSError):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpoints:
    """Numbered checkpoints under `workdir/checkpoints`.

    A checkpoint holds the parameters, their moving average, the optimizer's state, the step, and the position in the
    data from which the next batch is drawn. Saving is asynchronous: `save` returns when the arrays have been copied;
    threads write them, then their manifest (`manifests`); last, the folder is renamed to its number. Nothing older is
    removed before that.

    With several processes, which must share the file system, each writes its part of the arrays, and the first does the
    rest.

    Args:
      workdir: of the run.
      keep: number of newest checkpoints that stay.
      keep_every: checkpoints of steps that are multiples of it stay too; 0 for none.
    """

    def __init__(self, workdir: str | Path, keep: int = 2, keep_every: int = 0):
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._keep, self._keep_every = keep, keep_every
        self._is_first_process = jax.process_index() == 0
        with quiet_orbax():
            self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[int] | None = None
        self._saved: int | None = None  # the step last saved or restored; folders of later steps are not to be trusted
        self._tidied = self._failed = False
        self._hook, self._former_hook = without_late_writes(sys.unraisablehook), sys.unraisablehook
        sys.unraisablehook = self._hook

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order, damaged ones included."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir())

    @property
    def latest(self) -> int | None:
        """The newest step, or None."""
        return max(self.steps, default=None)

    def save(self, state: TrainState, position: Any) -> None:
        """Start to write a checkpoint of `state.step`, after the one in progress, unless it exists already.

        Args:
          state: may be donated to the next step when this returns.
          position: in the data, as JSON.

        Raises:
          CannotSave: this one, or the one in progress, cannot be written.
        """
        self.wait()
        step = int(state.step)
        if step == self._saved:
            return
        partial = self.folder / f"{step}{_PARTIAL}"
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave({"position": position}))
        try:
            if self._is_first_process:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._tidy()
            with contextlib.ExitStack() as quiet:
                quiet.enter_context(quiet_orbax())
                self._orbax.save(partial, args=items)
                until_finished = quiet.pop_all()  # its threads may fail at any time
        except Exception as error:  # Orbax and TensorStore raise errors of many kinds
            raise self._give_up(partial, error) from error
        self._saving = self._thread.submit(self._finish, step, partial, until_finished)

    def raise_if_failed(self) -> None:
        """Raise CannotSave if the checkpoint in progress has failed by now."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint in progress. Raises CannotSave if it failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            self._saved = saving.result()

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, Any]:
        """Read a checkpoint, after checking its files against its manifest.

        Args:
          abstract: shapes, types and shardings (`abstract_state`). Shardings, devices, their number and kind and the
            number of processes may differ from those of the run that saved it.
          step: which one; None: the newest that is not damaged.

        Returns: the state and the position in the data.

        Raises:
          ValueError: there is no checkpoint, none of that step, none that is not damaged, or it does not fit
            `abstract`.
        """
        step = self._newest_good() if step is None else self._check(step)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        try:
            with quiet_orbax():
                restored = self._orbax.restore(self.folder / str(step), args=items)
        except (ValueError, KeyError, TypeError) as error:  # its files are good, so it is of another structure
            raise ValueError(
                f"the checkpoint {self.folder / str(step)} does not fit this config; undo what was changed in it, "
                f"or train in another --workdir. Orbax says: {error}"
            ) from error
        self._saved = step
        logging.info("Restored step %d from %s", step, self.folder)
        return restored["state"], restored["data"]["position"]

    def close(self) -> None:
        """Wait for the checkpoint in progress, and log, not raise, if it fails. To be called once."""
        try:
            self.wait()
            with quiet_orbax():
                self._orbax.close()
            if sys.unraisablehook is self._hook and not self._failed:
                sys.unraisablehook = self._former_hook
        except CannotSave as error:
            logging.error("%s", error)
        self._thread.shutdown()

    def _newest_good(self) -> int:
        """Return the newest step that is not damaged. The first process looks, and sends it to the others."""
        found = _ALL_DAMAGED if self.steps else _NONE
        if self._is_first_process:
            for step in reversed(self.steps):
                try:
                    check_manifest(self.folder / str(step), step)
                except Damaged as damage:
                    logging.warning("Skipping the checkpoint of step %d, which is damaged: %s", step, damage)
                else:
                    found = step
                    break
        found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        if found == _NONE:
            raise ValueError(f"there is no checkpoint in {self.folder}")
        if found == _ALL_DAMAGED:
            raise ValueError(
                f"all checkpoints in {self.folder} are damaged; the log says how. "
                "To start over, move that folder away or train in another --workdir"
            )
        return found

    def _check(self, step: int) -> int:
        """Return `step`. Raises ValueError if there is no good checkpoint of it."""
        if step not in self.steps:
            known = ", ".join(map(str, self.steps)) or "none"
            raise ValueError(f"there is no checkpoint of step {step} in {self.folder}; those saved are {known}")
        try:
            check_manifest(self.folder / str(step), step)
        except Damaged as damage:
            raise ValueError(f"the checkpoint of step {step} is damaged: {damage}") from damage
        return step

    def _finish(self, step: int, partial: Path, quiet: contextlib.ExitStack) -> int:
        """Complete a checkpoint whose arrays have been copied, in a thread of its own."""
        try:
            with quiet:
                self._orbax.wait_until_finished()
            if self._is_first_process:
                write_manifest(partial, step)
                partial.rename(self.folder / str(step))
                sync_folder(self.folder)
        except Exception as error:  # as in save
            raise self._give_up(partial, error) from error
        logging.info("Saved step %d", step)
        if self._is_first_process:
            self._prune(step)
        return step

    def _give_up(self, partial: Path, error: Exception) -> CannotSave:
        """Remove what was written of a checkpoint that failed, and return the error to raise."""
        self._failed = True
        abandon_orbax_threads()
        if self._is_first_process:
            for path in self.folder.glob(partial.name + "*"):
                shutil.rmtree(path, ignore_errors=True)
        return CannotSave(f"cannot save a checkpoint into {self.folder}: {_reason(error)}")

    def _tidy(self) -> None:
        """Remove, before the run's first checkpoint, what a killed run left unfinished, and what is damaged.

        Those of later steps than the one that was restored are damaged, as restoring skipped them. They would be in the
        way of new checkpoints of the same steps.
        """
        if self._tidied:
            return
        self._tidied = True
        for path in self.folder.glob(f"*{_PARTIAL}*"):
            logging.info("Removing %s, which was not finished", path)
            shutil.rmtree(path)
        for step in self.steps:
            if step > (-1 if self._saved is None else self._saved):
                logging.warning("Removing %s, which is damaged", self.folder / str(step))
                self._remove(step)

    def _prune(self, newest: int) -> None:
        """Remove the checkpoints that need not stay, now that there is one of the step `newest`."""
        steps = [step for step in self.steps if step <= newest]
        for step in steps[: -self._keep]:
            if not self._keep_every or step % self._keep_every:
                self._remove(step)

    def _remove(self, step: int) -> None:
        partial = self.folder / f"{step}{_PARTIAL}"
        (self.folder / str(step)).rename(partial)
        shutil.rmtree(partial)


def abstract_state(shapes: TrainState, shardings: Any) -> TrainState:
    """Return `shapes` with the shardings to restore onto, a tree of the same structure."""
    return jax.tree.map(lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes, shardings)


def _reason(error: BaseException) -> str:
    """Say in a few words why a file could not be written; TensorStore has the number of the error in its text."""
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
    """Yield an error and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
