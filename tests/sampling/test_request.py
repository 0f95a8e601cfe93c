"""What is asked of a pipeline, completed from a model's index."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from configs.shapes.sample import get_config
from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.stages.settings import StageSettings
from videogen_jax.weights.model_index import ModelIndex

INDEX = {"_class_name": "VideoGenPipeline", "cascade": ["cascade_4", "cascade_8"], "num_frames": 16, "fps": 7.5}
PROMPT = "a small red circle"


def read_index(folder, upsampler_factor=4, **fields):
    """The index of a model of frames of 16x16 pixels, of which there are settings alone."""
    unet = {"block_out_channels": [16, 16]}
    configs = {
        "vae": unet,
        "unet": {**unet, "sample_size": 8},
        "cascade_4": {"resolution": 4, "unet": unet},
        "cascade_8": {"resolution": 8, "unet": unet},
    }
    if upsampler_factor:
        configs["temporal_upsampler"] = {"_class_name": "TemporalStage", "factor": upsampler_factor}
    for part, config in configs.items():
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps({**INDEX, **fields}))
    return ModelIndex.read(folder)


def resolve(index, prompts=PROMPT, **keywords):
    return SamplingRequest.from_keywords(prompts, **keywords).resolve(index)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, (2, 31, 15.0)),
        ({"num_frames": 2}, (1, 2, 7.5)),
        ({"num_frames": 16}, (1, 16, 7.5)),
        ({"num_frames": 17}, (2, 17, 15.0)),
        ({"num_frames": 31}, (2, 31, 15.0)),
        ({"num_frames": 32}, (4, 32, 30.0)),
        ({"num_frames": 61}, (4, 61, 30.0)),
        ({"num_frames": 10, "temporal_factor": 4}, (4, 10, 30.0)),
        ({"temporal_factor": 4, "fps": 12}, (4, 61, 12.0)),
    ],
)
def test_the_smallest_temporal_factor_that_is_enough_is_taken(tmp_path, keywords, expected):
    request = resolve(read_index(tmp_path, temporal_factor=2), **keywords)
    assert (request.temporal_factor, request.num_frames, request.fps) == expected


def test_without_upsampler_there_are_base_frames_alone(tmp_path):
    index = read_index(tmp_path, upsampler_factor=None, temporal_factor=2)
    request = resolve(index)
    assert (request.temporal_factor, request.num_frames, request.fps) == (1, 16, 7.5)
    with pytest.raises(ValueError, match="2 to 16 frames"):
        resolve(index, num_frames=17)
    with pytest.raises(ValueError, match="the model has no temporal_upsampler"):
        resolve(index, temporal_factor=2)


def test_overrides_win_over_a_stage_s_settings_over_the_model_s(tmp_path):
    sampling = {"steps": 30, "sampler": "ddim", "cascade_8": {"steps": 12, "noise_level": 50}}
    index = read_index(tmp_path, sampling=sampling)
    request = resolve(index, guidance_scale=5.0, steps={"reference": 40}, noise_level=None)
    assert request.stages == {
        "reference": StageSettings(5.0, 1.0, 40, "ddim", None),
        "cascade_4": StageSettings(5.0, 1.0, 30, "ddim", None),
        "cascade_8": StageSettings(5.0, 1.0, 12, "ddim", 50),
    }
    by_name = resolve(index, steps={"cascade": 4, "cascade_8": 2}).stages
    assert {name: settings.steps for name, settings in by_name.items()} == {
        "reference": 30,
        "cascade_4": 4,
        "cascade_8": 2,
    }


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_frames": 62}, "num_frames is 62, but the model makes 2 to 61 frames"),
        ({"num_frames": 1}, "2 to 61 frames"),
        ({"num_frames": 32, "temporal_factor": 2}, "2 to 31 frames with temporal_factor 2"),
        ({"temporal_factor": 3}, "temporal_factor is 3, but may be 1, 2, 4"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": True}, "steps is True"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"reference_guidance_scale": float("inf")}, "reference_guidance_scale is inf"),
        ({"sampler": "euler_ancestral"}, "sampler is 'euler_ancestral'"),
        ({"noise_level": 1000}, "noise_level is 1000"),
        ({"steps": {"cascade_5": 3}}, "steps names the stage cascade_5"),
        ({"decode_chunk": 4, "decode_overlap": 2}, "decode_chunk is 4"),
        ({"size": (16, 20)}, "size is 16x20, but height and width must be multiples of 8 pixels"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"seed": True}, "seed is True"),
        ({"seed": (1, 2)}, "2 seeds were given for 1 prompts"),
        ({"temporal_factor": 4.0}, "temporal_factor is 4.0"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"prompts": ()}, "there are no prompts"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, keywords, message):
    with pytest.raises((ValueError, TypeError), match=message):
        resolve(read_index(tmp_path), **keywords)


def test_an_unknown_setting_is_named():
    with pytest.raises(TypeError, match="unknown setting 'step'; the settings are batch_size, decode_chunk"):
        SamplingRequest.from_keywords(PROMPT, step=3)


def test_a_resolved_request_stays_as_it_is_and_survives_json(tmp_path):
    index = read_index(tmp_path)
    request = resolve(index, seed=7, size=[32, 16], steps={"cascade": 3}, batch_size=2)
    assert request.resolve(index) == request
    content = json.loads(json.dumps(request.to_json()))
    again = SamplingRequest.from_json(content).resolve(index)
    assert again == request
    assert (again.seed, again.size, again.stages["cascade_4"].steps) == ((7,), (32, 16), 3)


def test_numbers_of_numpy_are_as_good_and_survive_json(tmp_path):
    index = read_index(tmp_path)
    numbers = {
        "num_frames": np.int64(20),
        "temporal_factor": np.int32(2),
        "size": np.array([16, 32]),
        "seed": np.uint32(5),
    }
    numbers |= {"steps": np.int64(3), "guidance_scale": np.float32(2), "batch_size": np.int64(1)}
    request = resolve(index, **numbers)
    assert request == resolve(index, **{name: value.tolist() for name, value in numbers.items()})
    json.dumps(request.to_json())


def test_a_config_says_the_same_as_keywords(tmp_path):
    index = read_index(tmp_path)
    config = get_config()
    config.update({"seed": 3, "frames": 20, "fps": 5.0, "size": "16x32", "decode_chunk": 9})
    config.cascade.update({"steps": 4, "noise_level": 7})
    config.reference.guidance_scale = 1.5
    with config.unlocked():
        config.cascade_8 = {"steps": 2}
    keywords = {"seed": 3, "num_frames": 20, "fps": 5.0, "size": (16, 32), "decode_chunk": 9}
    keywords |= {"steps": {"cascade_4": 4, "cascade_8": 2}, "noise_level": {"cascade_4": 7, "cascade_8": 7}}
    expected = resolve(index, [PROMPT], guidance_scale={"reference": 1.5}, **keywords)
    assert SamplingRequest.from_config(config, [PROMPT]).resolve(index) == expected
    config.size = "16 by 32"
    with pytest.raises(ValueError, match="size is '16 by 32', but must be height x width in pixels"):
        SamplingRequest.from_config(config, [PROMPT])


def test_an_image_is_needed_where_nothing_draws_one(tmp_path):
    index = read_index(tmp_path)
    without = dataclasses.replace(index, folder=tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="no unet that could draw the reference image"):
        resolve(without)
    assert resolve(dataclasses.replace(index, reference_folder=tmp_path)).batch_size == 1


def test_a_request_is_made_without_jax():
    script = "import sys, videogen_jax.sampling.request; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
