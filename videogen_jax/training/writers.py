"""Metrics of a run: JSON lines and TensorBoard events, with sample videos as animated GIFs."""

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary


class MetricsWriter:
    """Writes `workdir/metrics.jsonl` and TensorBoard events into `workdir`.

    After a resume the JSON lines of steps past the checkpoint are dropped, so that each step appears once; so is a
    last line that was cut off when the run was killed.
    """

    def __init__(self, workdir: str | Path, first_step: int = 0):
        self.folder = Path(workdir)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "metrics.jsonl"
        if path.exists():
            whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            path.write_text("".join(line for line in whole if json.loads(line)["step"] <= first_step))
        self._lines = path.open("a", buffering=1)
        self._events = SummaryWriter(str(self.folder), purge_step=first_step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        record = {"step": step, "time": round(time.time(), 3), **{k: float(v) for k, v in values.items()}}
        self._lines.write(json.dumps(record) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, float(value), step)

    def videos(self, step: int, name: str, videos: np.ndarray, fps: float = 8.0) -> None:
        """videos: uint8 `(B, T, H, W, 3)`, shown side by side as one looping picture (a still one if T is 1)."""
        row = np.concatenate(list(videos), axis=2)
        frames = [Image.fromarray(frame) for frame in row]
        buffer = io.BytesIO()
        frames[0].save(
            buffer, "GIF", save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0, optimize=False
        )
        image = Summary.Image(
            height=row.shape[1], width=row.shape[2], colorspace=3, encoded_image_string=buffer.getvalue()
        )
        self._events.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._lines.close()
        self._events.close()
