import dataclasses
import json
import shutil

import numpy as np
import pytest

from configs.shapes.sample import get_config
from videogen_jax import __version__
from videogen_jax.sampling import command
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.sampling.recipe import METADATA_KEY, Recipe
from videogen_jax.video_io import read_image, read_metadata, read_video, write_image, write_video

CIRCLE, SQUARE = "a small red circle moving right slowly on a gray background", "a large blue square growing"


@pytest.fixture(scope="module")
def output(tiny_pipeline):
    return tiny_pipeline([CIRCLE, SQUARE], seed=[3, 4])


def test_a_recipe_says_what_was_done(output, tiny_pipeline):
    first, second = output.recipes
    assert (first.prompt, first.seed, first.slot) == (CIRCLE, 3, 0)
    assert (second.prompt, second.seed, second.slot) == (SQUARE, 4, 1)
    request = first.request
    assert (request.num_frames, request.fps, request.temporal_factor, request.size) == (7, 15.0, 2, (16, 16))
    assert (request.batch_size, first.reference, first.dtype) == (2, None, "float32")
    assert first.software["videogen_jax"] == __version__
    assert request.stages == tiny_pipeline.index.stage_settings
    assert Recipe.from_json(first.to_json()) == first


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".png"])
def test_files_hold_their_recipe(output, tmp_path, suffix):
    recipe = output.recipes[0]
    request = dataclasses.replace(recipe.request, prompts=('a "small" röd \\ ☂ circle',))
    recipe = dataclasses.replace(recipe, request=request)
    path = tmp_path / f"video{suffix}"
    if suffix == ".png":
        write_image(path, output.frames[0, 0], recipe.metadata())
    else:
        write_video(path, output.frames[0], output.fps, recipe.metadata())
    assert Recipe.read(path) == recipe
    metadata = read_metadata(path)
    assert metadata["title"] == recipe.prompt
    assert "seed 3" in metadata["comment"]


def test_a_video_is_made_again_bit_for_bit(sample_config, capsys):
    made = command.sample(sample_config, [CIRCLE, SQUARE], "made/")
    for target in made:
        again = command.remake(get_config(), str(target.video))
        assert again.video == target.video.with_name(f"{target.video.stem}-again.mp4")
        assert again.video.read_bytes() == target.video.read_bytes()
        np.testing.assert_array_equal(read_image(again.sheet), read_image(target.sheet))


def test_settings_size_and_a_given_reference_are_kept(sample_config, tmp_path):
    write_image("photo.png", np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    sample_config.frames, sample_config.fps, sample_config.cascade.steps, sample_config.size = 5, 6.0, 3, "16x24"
    sample_config.batch_size = 1  # so the programs are those of a test of the pipeline
    with pytest.warns(UserWarning, match="trained on 16x16 pixels; other sizes come out worse"):
        (target,) = command.sample(sample_config, [CIRCLE], "made/video.gif", "photo.png", save_reference=True)
    frames, fps = read_video(target.video)
    assert (frames.shape, fps) == ((5, 16, 24, 3), 6.0)
    recipe = Recipe.read(target.video)
    assert recipe.request.stages["cascade_8"].steps == 3
    assert "reference" not in recipe.request.stages
    with pytest.raises(ValueError, match="was given: say with --reference where it is"):
        command.remake(get_config(), str(target.video))
    for image in ("photo.png", str(target.reference)):  # the whole photo, or what was cut from it
        again = command.remake(get_config(), str(target.video), "again.gif", image)
        assert again.video.read_bytes() == target.video.read_bytes()
    write_image("other.png", np.zeros((16, 24, 3), np.uint8))
    with pytest.raises(ValueError, match=r"--reference other\.png is not the image"):
        command.remake(get_config(), str(target.video), "again.gif", "other.png")


def test_another_model_or_machine_is_told(sample_config, tiny_pipeline, monkeypatch):
    (target,) = command.sample(sample_config, [CIRCLE], "made/")
    monkeypatch.setattr(command, "software", lambda: {"videogen_jax": "9.9", "jax": "1", "device": "abacus"})
    monkeypatch.setitem(tiny_pipeline.__dict__, "fingerprint", "0" * 64)
    with (
        pytest.warns(UserWarning, match="is not the model that made/"),
        pytest.warns(UserWarning, match=rf"was made with videogen_jax {__version__}, not 9\.9 and jax"),
    ):
        command.remake(get_config(), str(target.video))


def test_fingerprints_tell_weights_and_settings_apart(tiny_model, tiny_pipeline, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    same = VideoGenPipeline.from_pretrained(folder)
    assert same.fingerprint == tiny_pipeline.fingerprint
    weights = folder / "cascade_8" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    other = VideoGenPipeline.from_pretrained(folder)
    assert other.fingerprint != same.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.pop("seed"), "missing or unknown: seed"),
        (lambda fields: fields.update(colour=1), "missing or unknown: colour"),
        (lambda fields: fields["settings"]["reference"].update(steps=0), "steps is 0"),
        (lambda fields: fields["settings"]["reference"].update(depth=0), "settings, size or software are unusable"),
        (lambda fields: fields.update(size=3), "settings, size or software are unusable"),
    ],
)
def test_a_bad_recipe_is_refused(output, tmp_path, change, message):
    fields = json.loads(output.recipes[0].to_json())
    change(fields)
    path = tmp_path / "video.gif"
    write_video(path, output.frames[0], 10, {METADATA_KEY: json.dumps(fields)})
    with pytest.raises(ValueError, match=f"video.gif: .*{message}"):
        Recipe.read(path)


def test_a_file_without_a_recipe_is_refused(output, tmp_path):
    write_video(tmp_path / "plain.mp4", output.frames[0], 10, {"title": "holiday"})
    (tmp_path / "text.mp4").write_text("no video")
    for name, message in (
        ("plain.mp4", "holds no recipe"),
        ("text.mp4", "cannot be read"),
        ("none.mp4", "does not exist"),
    ):
        with pytest.raises(ValueError, match=rf"{name} {message}"):
            Recipe.read(tmp_path / name)
