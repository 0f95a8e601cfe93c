"""Stable Video Diffusion against diffusers' pipeline, with tiny random networks written by diffusers."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as theirs_module  # noqa: E402
from PIL import Image  # noqa: E402

from configs.shapes.sample import get_config as sample_config  # noqa: E402
from tests.public_models import FRAMES, SIZE, gaussian_noise, pictures, stable_video_diffusion  # noqa: E402
from videogen_jax.runtime import compilation_cache, executables  # noqa: E402
from videogen_jax.sampling import model as model_module  # noqa: E402
from videogen_jax.sampling.command import export_programs, remake  # noqa: E402
from videogen_jax.sampling.pipeline import VideoGenPipeline  # noqa: E402
from videogen_jax.sampling.recipe import Recipe, array_digest  # noqa: E402
from videogen_jax.sampling.request import SamplingRequest  # noqa: E402
from videogen_jax.sampling.source import ModelSource  # noqa: E402
from videogen_jax.video_io import read_video, write_image  # noqa: E402
from videogen_jax.weights.public_video import read_index  # noqa: E402

STEPS = 5


@pytest.fixture(scope="module")
def theirs():
    return stable_video_diffusion()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("svd")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    return VideoGenPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def images():
    return pictures(SIZE)


def noise(batch):
    return gaussian_noise(batch, FRAMES, 8, 16, 4)


def test_the_video_is_that_of_diffusers(theirs, pipeline, images, monkeypatch):
    settings = {"noise_aug_strength": 0.1, "motion_bucket_id": 90}
    ours = pipeline(
        reference=images,
        latents=noise(2),
        seed=[5, 6],
        size=SIZE,
        steps=STEPS,
        decode_chunk=FRAMES,
        decode_overlap=0,
        conditioning_fps=9,
        min_guidance_scale=1.5,
        guidance_scale=3.5,
        **settings,
    )
    assert ours.frames.shape == (2, FRAMES, *SIZE, 3)
    np.testing.assert_array_equal(ours.reference, images)
    first, second = (recipe.noise["video"] for recipe in ours.recipes)
    assert first == array_digest(noise(2)[0]) != second
    keys = model_module.stage_keys(np.array([5, 6], np.uint32), model_module._IMAGE_NOISE)
    on_images = np.array(jax.vmap(lambda key: jax.random.normal(key, (1, *SIZE, 3)))(keys))[:, 0]
    monkeypatch.setattr(theirs_module, "randn_tensor", lambda *_, **__: torch.from_numpy(on_images).movedim(-1, 1))
    expected = theirs(
        [Image.fromarray(image) for image in images],
        *SIZE,
        num_frames=FRAMES,
        num_inference_steps=STEPS,
        fps=9,
        min_guidance_scale=1.5,
        max_guidance_scale=3.5,
        latents=torch.from_numpy(noise(2)).movedim(-1, 2),
        output_type="np",
        **settings,
    ).frames
    assert expected.std() > 0.05
    assert np.abs(expected[0] - expected[1]).mean() > 0.02
    assert np.abs(ours.frames - 255.0 * expected).max() <= 0.5 + 0.255  # rounding, and 1e-3


def test_its_index_says_how_it_is_sampled(folder):
    index = read_index(folder)
    assert (index.num_frames, index.fps, index.size, index.size_multiple) == (FRAMES, 7.0, (576, 1024), 16)
    assert not index.draws_reference
    settings = index.stage_settings["video"]
    assert (settings.steps, settings.sampler, settings.motion_bucket_id, settings.conditioning_fps) == (
        25,
        "euler",
        127,
        7,
    )


def test_a_recipe_holds_the_settings_of_its_kind(pipeline, images, compilations):
    output = pipeline(reference=images[0], size=SIZE, steps=2, motion_bucket_id=40, decode_chunk=FRAMES)
    (recipe,) = output.recipes
    settings = json.loads(recipe.to_json())["settings"]["video"]
    assert settings["motion_bucket_id"] == 40
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.noise is None
    compilations.clear()
    other = pipeline(reference=images[0], size=SIZE, steps=3, motion_bucket_id=200, decode_chunk=FRAMES)
    assert not compilations
    assert not np.array_equal(output.frames, other.frames)


def test_a_recipe_of_given_noise_is_not_made_again_with_other_noise(pipeline, images, tmp_path):
    request = SamplingRequest.from_keywords(reference=images[0], latents=noise(1), size=SIZE).resolve(pipeline.index)
    recipe = pipeline._recipe(request, pipeline.inputs(request), 0)
    assert Recipe.from_json(recipe.to_json()).noise == {"video": array_digest(noise(1)[0])}
    write_image(tmp_path / "sheet.png", images[0], recipe.metadata())
    with pytest.raises(ValueError, match=r"sheet.png was made from noise that was given for video.*latents="):
        remake(sample_config(), str(tmp_path / "sheet.png"))


def test_a_text_to_image_model_draws_the_reference(folder, tiny_model):
    animated = VideoGenPipeline.from_pretrained(folder, reference_model=tiny_model)
    calls = []
    output = animated(
        "a small red circle",
        size=SIZE,
        steps=1,
        decode_chunk=FRAMES,
        sampler={"reference": "dpmpp_2m"},
        callback=lambda *call: calls.append(call[0]),
    )
    assert output.frames.shape == (1, FRAMES, *SIZE, 3)
    assert list(dict.fromkeys(calls)) == ["text", "reference", "video", "decode"]
    with pytest.warns(UserWarning, match="the model reads no prompt"):
        again = animated("a circle", reference=output.reference[0], size=SIZE, steps=1, decode_chunk=FRAMES)
    np.testing.assert_array_equal(again.reference, output.reference)


def test_the_command_animates_a_picture(folder, images, tmp_path, run_command):
    write_image(tmp_path / "photo.png", images[0])
    settings = ("--size=64x128", "--steps=1", "--motion_bucket_id=60", "--config.decode_chunk=8", "--fps=12")
    run = functools.partial(run_command, "videogen_jax.sample", "--reference=photo.png", cwd=tmp_path)
    done = run(f"--model={folder}", *settings, VIDEOGEN_JAX_CACHE="off")
    assert (done.returncode, done.stdout.split()) == (0, ["out/photo-0.mp4", "out/photo-0.png"]), done.stderr
    assert "the model was trained on 576x1024 pixels" in done.stderr
    frames, fps = read_video(tmp_path / "out" / "photo-0.mp4")
    assert (frames.shape, fps) == ((FRAMES, *SIZE, 3), 12.0)
    recipe = Recipe.read(tmp_path / "out" / "photo-0.mp4")
    assert recipe.request.stages["video"].motion_bucket_id == 60
    done = run("--recipe=out/photo-0.mp4", VIDEOGEN_JAX_CACHE="off")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/photo-0-again.mp4").read_bytes() == (tmp_path / "out/photo-0.mp4").read_bytes()


def test_exported_programs_give_the_same_video(folder, pipeline, images, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv(compilation_cache.VARIABLE, "off")
    config = sample_config()
    config.model, config.size, config.decode_chunk = str(folder), "64x128", FRAMES
    export_programs(config, tmp_path / "exported", [1], previews=False)
    loaded = VideoGenPipeline.from_pretrained(folder, exported=tmp_path / "exported")
    settings = {"reference": images[0], "size": SIZE, "steps": 2, "decode_chunk": FRAMES, "motion_bucket_id": 9}
    with caplog.at_level("WARNING", logger="absl"):
        output = loaded(**settings)
    assert "not exported" not in caplog.text
    np.testing.assert_array_equal(output.frames, pipeline(**settings).frames)


def test_a_later_process_traces_nothing(folder, images, tmp_path, monkeypatch):
    before = jax.config.jax_enable_compilation_cache
    cache = executables.keep_executables(tmp_path)
    settings = {"reference": images[0], "size": (64, 64), "num_frames": 2, "steps": 1}
    try:
        first = VideoGenPipeline.load(ModelSource.find(folder), cache=cache)
        output = first(**settings)
        first.programs._pool.shutdown()
        second = VideoGenPipeline.load(ModelSource.find(folder), cache=cache)
        monkeypatch.setattr(second.programs, "_trace", None)
        np.testing.assert_array_equal(second(**settings).frames, output.frames)
    finally:
        executables._use_jaxs_cache(before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the model animates an image: give one as the reference, or a reference_model"),
        ({"reference": "image", "size": (64, 120)}, "size is 64x120, but .* multiples of 16"),
        (
            {"reference": "image", "motion_bucket_id": 300},
            "motion_bucket_id is 300, but must be a number from 0 to 255",
        ),
        ({"reference": "image", "noise_aug_strength": -1.0}, "noise_aug_strength is -1.0, but must be at least 0"),
        ({"reference": "image", "conditioning_fps": 0.5}, "conditioning_fps is 0.5, but must be at least 1"),
        ({"reference": "image", "temporal_factor": 2}, "temporal_factor is 2, but may be 1: .*no temporal_upsampler"),
        (
            {"reference": "image", "latents": np.zeros((1, 8, 4, 4, 4))},
            r"latents of video are .* must be \(1, 8, 8, 16",
        ),
        ({"reference": "image", "sampler": "pndm"}, "pndm"),
    ],
)
def test_what_cannot_work_is_refused_before_compiling(pipeline, images, compilations, arguments, message):
    if arguments.get("reference"):
        arguments = {**arguments, "reference": images[0]}
    with pytest.raises(ValueError, match=message):
        pipeline(**{"size": SIZE, **arguments})
    assert not compilations


def test_settings_of_another_kind_of_model_are_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="motion_bucket_id is not a setting of this model"):
        tiny_pipeline("a red circle", motion_bucket_id=127)


def test_folders_that_are_no_video_model_are_named(folder, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns("image_encoder"))
    with pytest.raises(ValueError, match="is a StableVideoDiffusionPipeline without its part image_encoder"):
        read_index(broken)
    for name, message in (
        ("StableDiffusionPipeline", "it draws images; name it with --reference_model"),
        ("MochiPipeline", "describes a MochiPipeline; models of videos are VideoGenPipeline, StableVideoDiffusion"),
    ):
        (broken / "model_index.json").write_text(json.dumps({"_class_name": name}))
        with pytest.raises(ValueError, match=message):
            read_index(broken)
