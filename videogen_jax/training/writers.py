"""Metrics of a run: JSON lines and TensorBoard events, with sample videos as animated GIFs."""

import contextlib
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, scalar, text

from videogen_jax.training.manifests import write_text
from videogen_jax.video_io import write_video

_FLUSH_SECONDS = 120.0  # at most so much of TensorBoard's file is lost if the run is killed
# TensorBoard shows scalars of one prefix together; what is not named here is of the stage's loss.
_GROUPS = {
    "learning_rate": "optimizer",
    "grad_norm": "optimizer",
    "steps_per_second": "speed",
    "clips_per_second": "speed",
    "data_wait": "speed",
}


def _while_it_can(method: Callable[..., None]) -> Callable[..., None]:
    """A method of `MetricsWriter` that does nothing once something could not be written, or where nothing is to be."""

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
                with contextlib.suppress(OSError):  # that of the same disk
                    file.close()

    return attempt


class MetricsWriter:
    """Writes `workdir/metrics.jsonl` and TensorBoard events into `workdir`.

    After a resume the JSON lines of steps past the checkpoint are dropped, so that each step appears once; so is a
    last line that was cut off when the run was killed. Of several processes one writes, the others with
    `enabled=False` do nothing. Where the disk no longer takes them, the run goes on without metrics, after a warning:
    whether it can go on is for the checkpoints to say.
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
            write_text(path, "".join(line for line in whole if json.loads(line)["step"] <= first_step))
        self._lines = path.open("a", buffering=1)
        self._flush_at = 0.0
        # Not SummaryWriter: it writes in a thread, whose errors come out when the program ends, in place of the reason.
        self._events = EventsWriter(str(self._folder / "events"))
        self._event(first_step + 1, file_version="brain.Event:2")
        self._event(first_step + 1, session_log=SessionLog(status=SessionLog.START))  # drops what came after

    @_while_it_can
    def config(self, config: Mapping[str, Any]) -> None:
        """Shows the config as text, and its scalars as hyperparameters, by which TensorBoard compares runs."""
        shown = json.dumps(config, indent=2, sort_keys=True)
        self._event(self._first_step, summary=text("config", f"```json\n{shown}\n```"))
        experiment, session, _ = hparams(dict(_scalars(config)), {_tag("loss"): None})
        for summary in (experiment, session):
            self._event(0, summary=summary)

    @_while_it_can
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Plain names in the JSON lines; TensorBoard's are grouped: train/loss, optimizer/learning_rate."""
        record = {"step": step, "time": round(time.time(), 3), **{k: float(v) for k, v in values.items()}}
        self._lines.write(json.dumps(record) + "\n")
        for name, value in values.items():
            self._event(step, summary=scalar(_tag(name), float(value)))
        if time.monotonic() > self._flush_at:
            self._events.flush()
            self._flush_at = time.monotonic() + _FLUSH_SECONDS

    @_while_it_can
    def video(self, step: int, name: str, frames: np.ndarray, fps: float = 8.0) -> None:
        """frames: uint8 `(T, H, W, 3)`, shown as a looping picture (a still one if T is 1)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.gif"
            write_video(path, frames, fps)
            encoded = path.read_bytes()
        height, width = frames.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._event(step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    @_while_it_can
    def flush(self) -> None:
        self._events.flush()

    @_while_it_can
    def close(self) -> None:
        self._lines.close()
        self._events.close()
        self.enabled = False

    def _event(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(step=step, wall_time=time.time(), **content))


def _tag(name: str) -> str:
    return f"{_GROUPS.get(name, 'train')}/{name}"


def _scalars(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | bool | int | float]]:
    """The leaves of a nested config that are numbers or words, by their dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, (str, bool, int, float)):
            yield prefix + name, value
