"""A world that is added to the registry is evaluated as the shapes world is, by what it offers alone."""

import json
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from videogen_jax.data.world import Evaluation, OpticalFlow, RenderedClip, World
from videogen_jax.metrics import worlds
from videogen_jax.metrics.attributes import read_attributes, summarize_readings
from videogen_jax.metrics.captions import build_captions
from videogen_jax.metrics.real_clips import build_real_clips
from videogen_jax.metrics.report import write_report

LEVELS = {"dark": 40, "bright": 200}


def _render(seed, index, split, num_frames, resolution):
    name = list(LEVELS)[(seed + index) % 2]
    return RenderedClip(f"a {name} room", np.full((num_frames, resolution, resolution, 3), LEVELS[name], np.uint8))


def _read(frames):
    return types.SimpleNamespace(values={"light": min(LEVELS, key=lambda name: abs(LEVELS[name] - frames.mean()))})


def _flow(reading, side):
    everywhere = np.ones((3, side, side), bool)
    return OpticalFlow(np.zeros((3, side, side, 2)), everywhere, everywhere)


ROOMS = World(
    name="rooms",
    sources={},
    evaluation=Evaluation(
        splits=("train", "held_out"),
        attributes={"light": tuple(LEVELS)},
        image_attributes=("light",),
        subject="room",
        least_frames=2,
        captions=lambda count, split, seed: [f"a {list(LEVELS)[n % 2]} room" for n in range(count)],
        render=_render,
        parse=lambda caption: {"light": caption.split()[1]},
        read_clip=_read,
        read_image=_read,
        flow=_flow,
    ),
)


@pytest.fixture
def rooms(monkeypatch):
    monkeypatch.setitem(worlds.EVALUATED_WORLDS, "rooms", ROOMS)
    return ConfigDict({"world": "rooms", "prompts": 4, "seeds": 1, "seed": 0, "real_clips": 3})


def test_captions_and_real_clips_are_those_of_the_world(rooms):
    captions = build_captions(rooms, "held_out")
    assert captions.world is ROOMS.evaluation
    assert [caption.text for caption in captions.captions] == ["a dark room", "a bright room"] * 2
    stored = {}

    def add(keys, texts, videos):
        stored[keys[0]] = (texts[0], videos[0].shape, videos[0].mean())

    published = types.SimpleNamespace(networks=("i3d",), has=lambda key: False, add=add)
    keys = build_real_clips(rooms, captions).extract_features(published, num_frames=4, fps=8.0, resolution=16)
    assert list(stored) == keys
    assert list(stored.values())[:2] == [("a dark room", (4, 16, 16, 3), 40), ("a bright room", (4, 16, 16, 3), 200)]


def test_videos_are_read_and_reported_by_the_world(rooms, tmp_path):
    captions = build_captions(rooms, "held_out")
    records = []
    for key, example in captions.examples(0).items():
        frames = np.full((4, 16, 16, 3), LEVELS["bright"], np.uint8)  # every video is bright
        readings = read_attributes(captions.world, frames, frames[0], example.prompt)
        records.append({"key": key, "prompt": example.prompt, "seed": example.seed, **readings})
    section = summarize_readings(captions.world, records)
    assert section["video"]["light"]["fraction"] == 0.5
    assert section["video_of_right_reference"]["all"]["count"] == 2
    assert section["consistency"]["warping_error"]["value"] == 0.0
    metrics = {"model": "m", "fingerprint": "f", "split": "held_out", "prompts": {**section, "results": records}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    page = write_report(tmp_path, captions.world).read_text()
    assert "Light: wrong in 2 of 4 videos" in page
    assert "said dark, <b>read bright</b>" in page


def test_a_config_names_its_world(rooms):
    assert worlds.world_of(rooms) is ROOMS
    assert worlds.world_of(ConfigDict()).name == "shapes"  # of configs from before there was a choice
    assert worlds.world_of(ConfigDict({"captions": {"source": "file"}})) is None
    with pytest.raises(ValueError, match=r"config\.world is 'cubes', but must be one of shapes, rooms"):
        worlds.world_of(ConfigDict({"world": "cubes"}))
