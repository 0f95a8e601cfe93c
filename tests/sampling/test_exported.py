"""A pipeline that loads exported programs, beside the one that traces them."""

import json
import logging as standard_logging
import shutil

import jax
import numpy as np
import pytest

from videogen_jax.sampling.exported import INDEX, ExportingPrograms, StoredPrograms, platform
from videogen_jax.sampling.pipeline import VideoGenPipeline

PROMPT = "a small red circle moving right slowly on a gray background"


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    """A folder of the tiny model's programs for all platforms, and the video that was made in exporting them."""
    pipeline = VideoGenPipeline.from_pretrained(tiny_model)
    pipeline.programs = ExportingPrograms(("cpu", "cuda", "tpu"))
    output = pipeline(PROMPT, seed=3)
    folder = tmp_path_factory.mktemp("aot")
    return pipeline.programs.write(folder, pipeline.fingerprint, pipeline.dtype), output


@pytest.fixture(scope="module")
def loaded(tiny_model, exported):
    return VideoGenPipeline.from_pretrained(tiny_model, exported=exported[0])


def changed(folder, to, **fields):
    shutil.copytree(folder, to)
    content = json.loads((to / INDEX).read_text())
    (to / INDEX).write_text(json.dumps({**content, **fields}))
    return to


def test_video_is_that_of_the_traced_pipeline(loaded, exported, tiny_pipeline, caplog):
    with caplog.at_level(standard_logging.WARNING, logger="absl"):
        output = loaded(PROMPT, seed=3)
    assert "not exported" not in caplog.text
    traced = tiny_pipeline(PROMPT, seed=3)
    for made in (output, exported[1]):
        np.testing.assert_array_equal(made.frames, traced.frames)
        np.testing.assert_array_equal(made.reference, traced.reference)


def test_other_steps_and_scales_are_arguments(loaded, tiny_pipeline, caplog):
    asked = {"seed": 5, "steps": 3, "guidance_scale": 3.0}
    with caplog.at_level(standard_logging.WARNING, logger="absl"):
        output = loaded(PROMPT, **asked)
    assert "not exported" not in caplog.text
    np.testing.assert_array_equal(output.frames, tiny_pipeline(PROMPT, **asked).frames)


def test_a_program_that_is_not_there_is_traced_and_named(loaded, tiny_pipeline, caplog):
    with caplog.at_level(standard_logging.WARNING, logger="absl"):
        output = loaded(PROMPT, seed=3, temporal_factor=1, num_frames=4, decode_chunk=4)
    warned = [record.getMessage() for record in caplog.records if "not exported" in record.getMessage()]
    assert len(warned) == 1
    assert "'decode'" in warned[0]
    traced = tiny_pipeline(PROMPT, seed=3, temporal_factor=1, num_frames=4, decode_chunk=4)
    np.testing.assert_array_equal(output.frames, traced.frames)


@pytest.mark.parametrize(
    ("field", "value"),
    [("fingerprint", "0" * 64), ("dtype", "bfloat16"), ("platforms", ["other"]), ("version", "0.0.0")],
)
def test_programs_of_something_else_are_refused(tiny_model, exported, tmp_path, field, value):
    folder = changed(exported[0], tmp_path / "aot", **{field: value})
    with pytest.raises(ValueError, match=f"{INDEX}: {field} "):
        VideoGenPipeline.from_pretrained(tiny_model, exported=folder)


def test_index_that_is_missing_or_incomplete(exported, tmp_path):
    with pytest.raises(ValueError, match=f"no {INDEX}"):
        StoredPrograms.read(tmp_path)
    (tmp_path / INDEX).write_text('{"dtype": "float32"}')
    with pytest.raises(ValueError, match="needs the field fingerprint"):
        StoredPrograms.read(tmp_path)


def test_damaged_program_names_its_file(exported, tmp_path):
    folder = changed(exported[0], tmp_path / "aot")
    stored = StoredPrograms.read(folder)
    name, _ = stored.files[repr(("text", 1, (16, 16)))]
    (folder / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=name):
        stored.load(("text", 1, (16, 16)))


def test_platforms(exported):
    assert platform() == jax.default_backend().replace("gpu", "cuda")
    with pytest.raises(ValueError, match="platforms must be some of"):
        ExportingPrograms(("gpu",))
