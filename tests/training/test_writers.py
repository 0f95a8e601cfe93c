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
    writer.scalars(1, {"loss": np.float32(0.5), "psnr": 20, "learning_rate": 0.25, "data_wait": 0})
    video = np.zeros((3, 8, 12, 3), np.uint8)
    video[..., :6, 0] = 255
    video[1, :, 6:] = 255
    writer.video(1, "drawn", video, fps=5.0)
    writer.video(1, "still", video[:1])
    writer.close()

    (record,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert record.pop("time") > 1e9
    assert record == {"step": 1, "loss": 0.5, "psnr": 20.0, "learning_rate": 0.25, "data_wait": 0.0}
    values = [(event.step, value) for event in read_events(tmp_path) for value in event.summary.value]
    grouped = {"train/loss": 0.5, "train/psnr": 20.0, "optimizer/learning_rate": 0.25, "speed/data_wait": 0.0}
    assert {value.tag: value.simple_value for _, value in values[:4]} == grouped
    assert [step for step, _ in values] == [1] * 6
    drawn, still = (Image.open(io.BytesIO(value.image.encoded_image_string)) for _, value in values[4:])
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
    writer.config({"seed": 3, "model": {"unet": {"channels": (8, 16), "name": "small"}, "gamma": None}, "flip": True})
    writer.scalars(7, {"loss": 0.25})
    writer.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("train/loss")] == [(7, 0.25)]
    (text,) = events.Tensors("config/text_summary")
    (shown,) = text.tensor_proto.string_val
    assert json.loads(shown.decode().removeprefix("```json").removesuffix("```"))["model"]["gamma"] is None
    hparams = pytest.importorskip("tensorboard.plugins.hparams.metadata")
    content = events.summary_metadata[hparams.SESSION_START_INFO_TAG].plugin_data.content
    session = hparams.parse_session_start_info_plugin_data(content)
    assert set(session.hparams) == {"seed", "model.unet.name", "flip"}
    assert (session.hparams["seed"].number_value, session.hparams["flip"].bool_value) == (3, True)


def test_a_writer_that_is_off_leaves_no_trace(tmp_path):
    writer = MetricsWriter(tmp_path / "run", enabled=False)
    writer.config({"seed": 3})
    writer.scalars(1, {"loss": 1.0})
    writer.video(1, "drawn", np.zeros((2, 8, 8, 3), np.uint8))
    writer.flush()
    writer.close()
    assert not list(tmp_path.iterdir())
