"""Metrics of a run: JSON lines and TensorBoard events, with sample videos as animated GIFs."""

import contextlib
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from videogen_jax.runtime.durable_files import write_text_durably
from videogen_jax.video_io import write_video

# tensorboardX imports PyTorch where it is installed, to take its tensors: 3 seconds and 200 MB for nothing here.
with contextlib.ExitStack() as imported:
    if "torch" not in sys.modules:
        sys.modules["torch"] = None  # as if it were not installed
        imported.callback(sys.modules.pop, "torch")
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import hparams, scalar, text

_FLUSH_SECONDS = 120.0  # at most this much of TensorBoard's file is lost if the run is killed
# TensorBoard groups scalars by prefix; names that are not listed here are metrics of the stage's loss.
_GROUPS = {
    "learning_rate": "optimizer",
    "grad_norm": "optimizer",
    "steps_per_second": "speed",
    "clips_per_second": "speed",
    "data_wait": "speed",
    "memory_gib": "speed",
}


def _if_enabled(method: Callable[..., None]) -> Callable[..., None]:
    """Wrap a method of `MetricsWriter` such that it does nothing if disabled, and disables it if it cannot write."""

    @functools.wraps(method)
    def attempt(self: "MetricsWriter", *args: Any, **kwargs: Any) -> None:
        if not self.enabled:
            return
        try:
            method(self, *args, **kwargs)
        except OSError as error:
            self.enabled = False
            logging.warning("Metrics are no longer written into %s: %s", self._folder, error.strerror or error)
            for file in (self._lines, self._events):
                with contextlib.suppress(OSError):  # of the same disk
                    file.close()

    return attempt


class MetricsWriter:
    """Writes `workdir/metrics.jsonl` and TensorBoard events into `workdir`.

    After a resume the JSON lines of steps past the checkpoint are dropped, so that each step appears once; so is a
    last line that was cut off when the run was killed. If the disk is full the run goes on without metrics, after a
    warning; only a checkpoint that cannot be written ends it.

    Args:
      workdir: of the run.
      first_step: the step that the run resumes from.
      enabled: False makes every method do nothing, for all processes but the first.
    """

    def __init__(self, workdir: str | Path, first_step: int = 0, enabled: bool = True):
        self.enabled, self._first_step = enabled, first_step
        if not enabled:
            return
        self._folder = Path(workdir)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "metrics.jsonl"
        if path.exists():
            whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            write_text_durably(path, "".join(line for line in whole if json.loads(line)["step"] <= first_step))
        self._lines = path.open("a", buffering=1)
        self._flush_at = 0.0
        # Not SummaryWriter: it writes from a thread, whose errors appear when the program ends and hide the reason.
        self._events = EventsWriter(str(self._folder / "events"))
        self._event(first_step + 1, file_version="brain.Event:2")
        self._event(first_step + 1, session_log=SessionLog(status=SessionLog.START))  # drops what came after

    @_if_enabled
    def config(self, config: Mapping[str, Any]) -> None:
        """Write the config as text, and its scalars as hyperparameters, by which TensorBoard compares runs."""
        formatted = json.dumps(config, indent=2, sort_keys=True)
        self._event(self._first_step, summary=text("config", f"```json\n{formatted}\n```"))
        experiment, session, _ = hparams(dict(_scalars(config)), {_tag("loss"): None})
        for summary in (experiment, session):
            self._event(0, summary=summary)

    @_if_enabled
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars: by plain names in the JSON lines, grouped (train/loss, optimizer/...) for TensorBoard."""
        record = {"step": step, "time": round(time.time(), 3), **{k: float(v) for k, v in values.items()}}
        self._lines.write(json.dumps(record) + "\n")
        for name, value in values.items():
            self._event(step, summary=scalar(_tag(name), float(value)))
        if time.monotonic() > self._flush_at:
            self._events.flush()
            self._flush_at = time.monotonic() + _FLUSH_SECONDS

    @_if_enabled
    def video(self, step: int, name: str, frames: np.ndarray, fps: float = 8.0) -> None:
        """Write a video for TensorBoard, as a looping picture. frames: uint8 `(T, H, W, 3)`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.gif"
            write_video(path, frames, fps)
            encoded = path.read_bytes()
        height, width = frames.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._event(step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    @_if_enabled
    def flush(self) -> None:
        """Bring TensorBoard's events to the file."""
        self._events.flush()

    @_if_enabled
    def close(self) -> None:
        """Close both files; later calls do nothing."""
        self._lines.close()
        self._events.close()
        self.enabled = False

    def _event(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(step=step, wall_time=time.time(), **content))


def _tag(name: str) -> str:
    return f"{_GROUPS.get(name, 'train')}/{name}"


def _scalars(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | bool | int | float]]:
    """Yield the leaves of a nested config that are numbers or strings, with their dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, (str, bool, int, float)):
            yield prefix + name, value
