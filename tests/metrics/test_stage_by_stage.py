import json
import sys
from pathlib import Path

import numpy as np
import pytest

from videogen_jax.metrics.fidelity import Codec
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.shapes.reader import score
from videogen_jax.shapes.world import frame_times, render, sample_clip


def test_stages_are_sampled_from_each_on_and_read(tiny_model, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import stage_by_stage

    sampled = []
    original = stage_by_stage.Sampler._sample

    def spy(self, name, stage, params, keys, context, null, reference, lower):
        below = None if lower is None else lower.shape[2]
        sampled.append((name, reference.shape[1:3], below))
        return original(self, name, stage, params, keys, context, null, reference, lower)

    monkeypatch.setattr(stage_by_stage.Sampler, "_sample", spy)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["stage_by_stage.py", "--model", str(tiny_model), *arguments])
        stage_by_stage.main()

    run("--output", str(tmp_path / "stages.json"), "--clips", "3", "--batch", "2", "--seed", "5")
    assert sampled == [("cascade_4", (1, 4), None), ("cascade_8", (1, 8), 4)]  # each is traced once
    found = json.loads((tmp_path / "stages.json").read_text())["sampled_from"]
    assert list(found) == ["cascade_4", "cascade_8", "none"]
    assert {of["all"]["count"] for of in found.values()} == {3}

    pipeline = VideoGenPipeline.from_pretrained(tiny_model)
    codec, right = Codec(pipeline, 16), []
    for number in range(3):
        clip = sample_clip(5, number, "held_out")
        frames = render(clip, frame_times(pipeline.index.num_frames), pipeline.resolution)
        right.append(score(codec.decode_video(codec.encode(frames)), clip.caption)["background"])
    assert found["none"]["background"]["right"] == np.sum(right)

    with pytest.raises(SystemExit):
        run("--output", str(tmp_path / "stages.json"), "--clips", "0")
    monkeypatch.delitem(sys.modules, "stage_by_stage")
