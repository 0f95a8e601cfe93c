import json

import pytest

from videogen_jax.weights.model_index import ModelIndex, StageSettings, Timeline

INDEX = {"_class_name": "VideoGenPipeline", "cascade": ["cascade_4", "cascade_8"], "num_frames": 16, "fps": 7.5}


def write(folder, upsampler_factor=4, **fields):
    (folder / "model_index.json").write_text(json.dumps({**INDEX, **fields}))
    if upsampler_factor:
        (folder / "temporal_upsampler").mkdir()
        config = {"_class_name": "TemporalStage", "factor": upsampler_factor}
        (folder / "temporal_upsampler" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, Timeline(2, 31, 15.0)),
        ({"num_frames": 2}, Timeline(1, 2, 7.5)),
        ({"num_frames": 16}, Timeline(1, 16, 7.5)),
        ({"num_frames": 17}, Timeline(2, 17, 15.0)),
        ({"num_frames": 31}, Timeline(2, 31, 15.0)),
        ({"num_frames": 32}, Timeline(4, 32, 30.0)),
        ({"num_frames": 61}, Timeline(4, 61, 30.0)),
        ({"num_frames": 10, "temporal_factor": 4}, Timeline(4, 10, 30.0)),
        ({"temporal_factor": 4, "fps": 12}, Timeline(4, 61, 12.0)),
    ],
)
def test_timeline_takes_the_smallest_factor_that_is_enough(tmp_path, asked, expected):
    assert ModelIndex.read(write(tmp_path, temporal_factor=2)).timeline(**asked) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_frames": 62}, "num_frames is 62, but the model makes 2 to 61 frames"),
        ({"num_frames": 1}, "2 to 61 frames"),
        ({"num_frames": 32, "temporal_factor": 2}, "2 to 31 frames with temporal_factor 2"),
        ({"temporal_factor": 3}, "temporal_factor is 3, but may be 1, 2, 4"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("inf")}, "fps is inf"),
    ],
)
def test_timeline_says_what_the_model_can_make(tmp_path, asked, message):
    with pytest.raises(ValueError, match=message):
        ModelIndex.read(write(tmp_path)).timeline(**asked)


def test_without_upsampler_only_base_frames(tmp_path):
    index = ModelIndex.read(write(tmp_path, upsampler_factor=None, temporal_factor=2))
    assert index.timeline() == Timeline(1, 16, 7.5)
    with pytest.raises(ValueError, match="2 to 16 frames"):
        index.timeline(17)
    with pytest.raises(ValueError, match="the model has no temporal_upsampler"):
        index.timeline(temporal_factor=2)


def test_factors_are_the_divisors_of_that_in_training(tmp_path):
    assert ModelIndex.read(write(tmp_path, upsampler_factor=8)).factors == (1, 2, 4, 8)


def test_settings_asked_for_win_over_a_stage_s_over_the_model_s(tmp_path):
    sampling = {"steps": 30, "sampler": "ddim", "cascade_8": {"steps": 12, "noise_level": 50}}
    index = ModelIndex.read(write(tmp_path, sampling=sampling))
    settings = index.settings(guidance_scale=5.0, steps={"reference": 40}, noise_level=None)
    assert settings == {
        "reference": StageSettings(5.0, 1.0, 40, "ddim", None),
        "cascade_4": StageSettings(5.0, 1.0, 30, "ddim", None),
        "cascade_8": StageSettings(5.0, 1.0, 12, "ddim", 50),
    }


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": True}, "steps is True"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"reference_guidance_scale": float("inf")}, "reference_guidance_scale is inf"),
        ({"sampler": "euler_ancestral"}, "sampler is 'euler_ancestral'"),
        ({"noise_level": 1000}, "noise_level is 1000"),
        ({"steps": {"cascade_5": 3}}, "steps names the stage cascade_5"),
        ({"step": 3}, "step is not a setting"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, asked, message):
    with pytest.raises(ValueError, match=message):
        ModelIndex.read(write(tmp_path)).settings(**asked)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "describes a StableDiffusionPipeline, but a VideoGenPipeline"),
        ({"cascade": []}, "cascade must be a list"),
        ({"cascade": ["../elsewhere"]}, "cascade must be a list"),
        ({"num_frames": 1}, "num_frames is 1"),
        ({"fps": "fast"}, "fps is 'fast'"),
        ({"temporal_factor": 3}, "temporal_factor is 3"),
        ({"sampling": {"steps": 0}}, "sampling: steps is 0"),
        ({"sampling": {"stepz": 3}}, "sampling: stepz is neither"),
        ({"sampling": {"cascade_4": {"stepz": 3}}}, "sampling: stepz is not a setting"),
        ({"sampling": {"decode_chunk": 4, "decode_overlap": 2}}, "decode_chunk is 4"),
    ],
)
def test_a_wrong_index_is_refused_by_field(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        ModelIndex.read(write(tmp_path, **fields))


def test_a_missing_field_is_named(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "VideoGenPipeline", "fps": 8}))
    with pytest.raises(ValueError, match="needs the field cascade, num_frames"):
        ModelIndex.read(tmp_path)
