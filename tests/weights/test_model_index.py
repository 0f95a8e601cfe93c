import json

import pytest

from videogen_jax.stages.settings import StageSettings
from videogen_jax.weights.model_index import ModelIndex

INDEX = {"_class_name": "VideoGenPipeline", "cascade": ["cascade_4", "cascade_8"], "num_frames": 16, "fps": 7.5}


def write(folder, upsampler_factor=4, **fields):
    (folder / "model_index.json").write_text(json.dumps({**INDEX, **fields}))
    if upsampler_factor:
        (folder / "temporal_upsampler").mkdir()
        config = {"_class_name": "TemporalStage", "factor": upsampler_factor}
        (folder / "temporal_upsampler" / "config.json").write_text(json.dumps(config))
    return folder


def test_factors_are_the_divisors_of_that_in_training(tmp_path):
    assert ModelIndex.read(write(tmp_path, upsampler_factor=8)).factors == (1, 2, 4, 8)


def test_settings_of_a_stage_win_over_those_of_all(tmp_path):
    sampling = {"steps": 30, "sampler": "ddim", "cascade_8": {"steps": 12, "noise_level": 50}, "decode_chunk": 6}
    index = ModelIndex.read(write(tmp_path, sampling=sampling))
    assert index.stage_settings == {
        "reference": StageSettings(3.0, 1.0, 30, "ddim", None),
        "cascade_4": StageSettings(3.0, 1.0, 30, "ddim", None),
        "cascade_8": StageSettings(3.0, 1.0, 12, "ddim", 50),
    }
    assert (index.decode_chunk, index.decode_overlap) == (6, 2)


def test_sizes_follow_from_the_configs_of_the_parts(tmp_path, tiny_model, tiny_pipeline):
    index = ModelIndex.read(tiny_model)
    assert (index.resolution, index.size_multiple) == (16, 4)
    pipeline = tiny_pipeline
    assert index.resolution == pipeline.cascade[-1].resolution * pipeline.autoencoder.network.downsampling
    assert index.draws_reference
    bare = ModelIndex.read(write(tmp_path))
    assert not bare.draws_reference
    with pytest.raises(ValueError, match="vae does not exist"):
        bare.resolution  # noqa: B018
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"vae.config\.json needs the field block_out_channels"):
        bare.resolution  # noqa: B018


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
