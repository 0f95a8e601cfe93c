import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from videogen_jax.training.writers import MetricsWriter


def read_events(folder):
    """The records of the folder's event files: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_scalars_and_videos_reach_both_files(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.scalars(1, {"loss": np.float32(0.5), "psnr": 20})
    videos = np.zeros((2, 3, 8, 6, 3), np.uint8)
    videos[0, :, :, :, 0] = 255
    videos[1, 1] = 255
    writer.videos(1, "drawn", videos, fps=5.0)
    writer.videos(1, "still", videos[:, :1])
    writer.close()

    (record,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert record.pop("time") > 1e9
    assert record == {"step": 1, "loss": 0.5, "psnr": 20.0}
    values = [(event.step, value) for event in read_events(tmp_path) for value in event.summary.value]
    assert {value.tag: value.simple_value for _, value in values[:2]} == {"loss": 0.5, "psnr": 20.0}
    assert [step for step, _ in values] == [1] * 4
    drawn, still = (Image.open(io.BytesIO(value.image.encoded_image_string)) for _, value in values[2:])
    assert (drawn.format, drawn.size, drawn.n_frames, drawn.info["duration"]) == ("GIF", (12, 8), 3, 200)
    assert (still.size, still.n_frames) == ((12, 8), 1)
    drawn.seek(1)
    frame = np.asarray(drawn.convert("RGB"))
    assert frame[0, 0].tolist() == [255, 0, 0]
    assert frame[0, 11].tolist() == [255, 255, 255]


def test_resumed_writer_drops_what_came_after_the_checkpoint(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.scalars(step, {"loss": step})
    writer.close()
    writer = MetricsWriter(tmp_path, first_step=2)
    writer.scalars(3, {"loss": 30})
    writer.close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["step"], record["loss"]) for record in records] == [(1, 1), (2, 2), (3, 30)]


def test_tensorboard_itself_reads_the_events(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = MetricsWriter(tmp_path)
    writer.scalars(7, {"loss": 0.25})
    writer.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("loss")] == [(7, 0.25)]
