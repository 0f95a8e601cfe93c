"""Metrics of a run: JSON lines and TensorBoard events, with sample videos as animated GIFs."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams

from videogen_jax.video_io import write_video

# TensorBoard shows scalars of one prefix together; what is not named here is of the stage's loss.
_GROUPS = {
    "learning_rate": "optimizer",
    "grad_norm": "optimizer",
    "steps_per_second": "speed",
    "clips_per_second": "speed",
    "data_wait": "speed",
}


class MetricsWriter:
    """Writes `workdir/metrics.jsonl` and TensorBoard events into `workdir`.

    After a resume the JSON lines of steps past the checkpoint are dropped, so that each step appears once; so is a
    last line that was cut off when the run was killed. Of several processes one writes, the others with
    `enabled=False` do nothing.
    """

    def __init__(self, workdir: str | Path, first_step: int = 0, enabled: bool = True):
        self.enabled, self._first_step = enabled, first_step
        if not enabled:
            return
        folder = Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        if path.exists():
            whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            path.write_text("".join(line for line in whole if json.loads(line)["step"] <= first_step))
        self._lines = path.open("a", buffering=1)
        self._events = SummaryWriter(str(folder), purge_step=first_step + 1)

    def config(self, config: Mapping[str, Any]) -> None:
        """Shows the config as text, and its scalars as hyperparameters, by which TensorBoard compares runs."""
        if not self.enabled:
            return
        text = json.dumps(config, indent=2, sort_keys=True)
        self._events.add_text("config", f"```json\n{text}\n```", self._first_step)
        experiment, session, _ = hparams(dict(_scalars(config)), {_tag("loss"): None})
        for summary in (experiment, session):
            self._events.file_writer.add_summary(summary)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Plain names in the JSON lines; TensorBoard's are grouped: train/loss, optimizer/learning_rate."""
        if not self.enabled:
            return
        record = {"step": step, "time": round(time.time(), 3), **{k: float(v) for k, v in values.items()}}
        self._lines.write(json.dumps(record) + "\n")
        for name, value in values.items():
            self._events.add_scalar(_tag(name), float(value), step)

    def video(self, step: int, name: str, frames: np.ndarray, fps: float = 8.0) -> None:
        """frames: uint8 `(T, H, W, 3)`, shown as a looping picture (a still one if T is 1)."""
        if not self.enabled:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.gif"
            write_video(path, frames, fps)
            encoded = path.read_bytes()
        height, width = frames.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._events.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def flush(self) -> None:
        if self.enabled:
            self._events.flush()

    def close(self) -> None:
        if self.enabled:
            self._lines.close()
            self._events.close()


def _tag(name: str) -> str:
    return f"{_GROUPS.get(name, 'train')}/{name}"


def _scalars(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | bool | int | float]]:
    """The leaves of a nested config that are numbers or words, by their dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, (str, bool, int, float)):
            yield prefix + name, value
