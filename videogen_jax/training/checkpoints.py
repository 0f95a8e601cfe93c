"""Orbax checkpoints of the train state together with the position of the data iterator."""

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from videogen_jax.training.state import TrainState


class Checkpoints:
    """Numbered checkpoints under `workdir/checkpoints`.

    Saving is asynchronous; `close` waits for what is under way. A checkpoint holds the parameters, their moving
    average, the optimizer's state, the step, and the data iterator's state as it was before the next batch is drawn.
    """

    def __init__(self, workdir: str | Path, keep: int = 2, keep_period: int | None = None):
        self.folder = Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, keep_period=keep_period)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    @property
    def latest(self) -> int | None:
        """The newest finished step, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, iterator_state: Any) -> None:
        """Writes a checkpoint of `state.step` unless there is one."""
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        data = iterator_state.decode() if isinstance(iterator_state, bytes) else iterator_state
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave({"iterator": data})),
        )

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, Any]:
        """The state and the iterator's state of `step` (default: the newest).

        `abstract` gives shapes, types and shardings, which need not be those it was saved with.

        Raises:
          ValueError: if there is no checkpoint, or none of that step.
        """
        step = self.latest if step is None else step
        if step is None:
            raise ValueError(f"there is no checkpoint in {self.folder}")
        steps = self._manager.all_steps()
        if step not in steps:
            known = ", ".join(map(str, sorted(steps))) or "none"
            raise ValueError(f"there is no checkpoint of step {step} in {self.folder}; there are those of {known}")
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        logging.info("Restored step %d from %s", step, self.folder)
        return restored["state"], restored["data"]["iterator"]

    def close(self) -> None:
        self._manager.wait_until_finished()
        self._manager.close()


def abstract_state(shapes: TrainState, shardings: Any) -> TrainState:
    """Shapes with the shardings to restore onto."""
    return jax.tree.map(lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes, shardings)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    part.replace(path)
