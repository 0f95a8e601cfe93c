import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.tiny_model import random_params
from videogen_jax.data.loader import take
from videogen_jax.runtime.arrays import to_unit
from videogen_jax.shapes import latents
from videogen_jax.shapes.latents import LatentRecipe, shapes_latents
from videogen_jax.shapes.world import DURATION, render, sample_clip
from videogen_jax.training.build import build_source, build_stage, input_sizes
from videogen_jax.weights.model_folder import ModelFolder
from videogen_jax.weights.parts import load_autoencoder, load_text_encoder, save_public_part
from videogen_jax.weights.tokenizer import load_tokenizer, tokenize, train_tokenizer

RECIPE = {"split": "train", "seed": 1, "num_clips": 10, "num_frames": 2, "resolution": 4, "lower_resolution": 2}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """An autoencoder and a text encoder, untrained."""
    folder = tmp_path_factory.mktemp("model")
    train_tokenizer(["a small red circle growing on a gray background"], folder / "tokenizer", 16)
    tokenizer = load_tokenizer(folder / "tokenizer")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_layers": 1, "num_heads": 1, "projection_dim": 8}
    tokens = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "max_positions": 16}
    stages = {
        "text": {"text_encoder": {**sizes, **tokens}, "video_channels": (8,)},
        "autoencoder": {"autoencoder": {"block_out_channels": (4, 4), "layers_per_block": 1, "norm_num_groups": 2}},
    }
    for name, settings in stages.items():
        stage = build_stage(name, settings)
        batch = {"tokens": jnp.zeros((1, 16), jnp.int32), "video": jnp.zeros((1, 1, 4, 4, 3), jnp.uint8)}
        params = random_params(jax.eval_shape(stage.init, jax.random.key(0), batch), seed=0)
        for part, (where, config) in stage.parts().items():
            extra = {"scaling_factor": 2.0, "shift_factor": 0.5} if part == "vae" else {}
            save_public_part(folder / where, {**config, **extra}, params[part], dtype="float32")
    return folder


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(latents, "CHUNK", 4)


def read_all(source):
    examples = [source[i] for i in range(len(source))]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def test_interrupted_filling_goes_on_to_the_same_cache(model_folder, tmp_path, monkeypatch, small_chunks):
    source = shapes_latents(model_folder, cache_folder=str(tmp_path / "whole"), **RECIPE)
    rendered = []

    def render_seven(clip, *args):
        if len(rendered) == 7:
            raise KeyboardInterrupt
        rendered.append(clip.caption)
        return render(clip, *args)

    with monkeypatch.context() as patch:
        patch.setattr(latents, "render", render_seven)
        with pytest.raises(KeyboardInterrupt):
            shapes_latents(model_folder, cache_folder=str(tmp_path / "stopped"), **RECIPE)
    (part,) = (tmp_path / "stopped").iterdir()
    assert part.name.endswith(".part")
    assert json.loads((part / "progress.json").read_text()) == {"clips": 4}  # whole chunks only

    def render_rest(clip, *args):
        rendered.append(clip.caption)
        return render(clip, *args)

    with monkeypatch.context() as patch:
        patch.setattr(latents, "render", render_rest)
        resumed = shapes_latents(model_folder, cache_folder=str(tmp_path / "stopped"), **RECIPE)
        assert len(rendered) == 7 + 6  # the first chunk is not encoded again
        shapes_latents(model_folder, cache_folder=str(tmp_path / "stopped"), **RECIPE)
        assert len(rendered) == 7 + 6  # and nothing is when the cache is there
    assert resumed.folder.name == source.folder.name
    expected = read_all(source)
    assert {name: x.shape for name, x in expected.items()} == {
        "latents": (10, 2, 4, 4, 4),
        "lower": (10, 2, 2, 2, 4),
        "context": (10, 16, 8),
        "reference": (10, 1, 4, 4, 4),
    }
    for name, values in read_all(resumed).items():
        np.testing.assert_array_equal(values, expected[name])
    assert sorted(path.name for path in resumed.folder.iterdir()) == [
        "context.npy",
        "latents.npy",
        "lower.npy",
        "recipe.json",
    ]

    # Another frame as the reference, from the same cache and every time the same.
    settings = {"cache_folder": str(tmp_path / "whole"), **RECIPE}
    random = shapes_latents(model_folder, **settings, reference_frame="random")
    assert random.folder == source.folder
    chosen = [
        [i for i in range(2) if np.array_equal(example["reference"][0], example["latents"][i])]
        for example in (random[index] for index in range(10))
    ]
    assert {tuple(frames) for frames in chosen} == {(0,), (1,)}
    np.testing.assert_array_equal(read_all(random)["reference"], read_all(random)["reference"])
    with pytest.raises(ValueError, match=r"config\.data\.reference_frame is 'last'; it may be first or random"):
        shapes_latents(model_folder, **settings, reference_frame="last")

    # What it holds is what the networks give.
    autoencoder, vae = load_autoencoder(model_folder)
    text = load_text_encoder(model_folder)
    clip = sample_clip(1, 9, "train")
    assert source.caption(9) == clip.caption
    frames = to_unit(jnp.asarray(render(clip, [0.0, DURATION], 8)))
    encode = jax.jit(lambda frames: (autoencoder.encode(vae, frames), autoencoder.encode(vae, frames, 2)))
    for name, found in zip(("latents", "lower"), encode(frames), strict=True):
        np.testing.assert_allclose(expected[name][9], found, atol=5e-3)
    states = jax.jit(text.encode)(text.params, tokenize(text.tokenizer, [clip.caption]))[0]
    np.testing.assert_allclose(expected["context"][9], states, atol=5e-3)
    np.testing.assert_array_equal(expected["reference"][:, 0], expected["latents"][:, 0])


def test_what_an_example_holds_is_known_without_filling_the_cache(model_folder, tmp_path, monkeypatch):
    rendered = []
    monkeypatch.setattr(latents, "render", lambda clip, *args: (rendered.append(clip), render(clip, *args))[1])
    data = {"source": "shapes_latents", "cache_folder": str(tmp_path / "cache"), **RECIPE}
    config, model = ConfigDict({"model_folder": str(model_folder), "data": data}), ModelFolder(model_folder)
    stage = build_stage("cascade", {"unet": {"cross_attention_dim": 8}, "resolution": 4, "lower_resolution": 2})
    sizes = dataclasses.replace(input_sizes(config, stage, model), text_length=16)
    inputs = stage.input_spec(sizes)
    assert not rendered
    assert not (tmp_path / "cache").exists()
    source = build_source(config, stage, model)
    assert len(source) == RECIPE["num_clips"] > 1
    rendered.clear()
    again = build_source(config, stage, model)
    assert not rendered  # now it is there
    jax.tree.map(np.testing.assert_array_equal, take(again, [0]), take(source, [0]))
    example = source[0]
    assert {name: (x.shape, x.dtype) for name, x in inputs.items()} == {
        name: (x.shape, x.dtype) for name, x in example.items()
    }


def test_windows_with_their_frames(model_folder, tmp_path):
    recipe = {**RECIPE, "lower_resolution": None, "num_frames": 5, "window_rates": [2, 4], "text": False}
    source = shapes_latents(model_folder, cache_folder=str(tmp_path), video_resolution=8, **recipe)
    example = source[3]
    assert {name: x.shape for name, x in example.items()} == {"latents": (5, 4, 4, 4), "video": (5, 8, 8, 3)}
    times = source.recipe.times(3)
    np.testing.assert_array_equal(example["video"], render(sample_clip(1, 3, "train"), times, 8))
    spacings = {round(DURATION / 15 / float(np.diff(source.recipe.times(i))[0]), 6) for i in range(10)}
    assert spacings == {2.0, 4.0}
    assert all(0 <= source.recipe.times(i)[0] <= source.recipe.times(i)[-1] <= DURATION + 1e-9 for i in range(10))


def test_window_longer_than_a_clip_is_refused():
    with pytest.raises(ValueError, match=r"config.data.num_frames is 17"):
        LatentRecipe("train", 0, 4, num_frames=17, resolution=4, window_rates=(1,))
    LatentRecipe("train", 0, 4, num_frames=16, resolution=4, window_rates=(1,)).times(0)


def test_fingerprint_changes_with_recipe_and_weights(tmp_path):
    (tmp_path / "vae").mkdir()
    weights = tmp_path / "vae" / "weights"
    weights.write_bytes(b"1")
    first = latents.fingerprint({"seed": 1}, tmp_path, ["vae"])
    assert latents.fingerprint({"seed": 1}, tmp_path, ["vae"]) == first
    other_recipe = latents.fingerprint({"seed": 2}, tmp_path, ["vae"])
    weights.write_bytes(b"2")
    assert len({first, other_recipe, latents.fingerprint({"seed": 1}, tmp_path, ["vae"])}) == 3


def test_missing_part_is_named(tmp_path):
    with pytest.raises(ValueError, match="vae is missing: train and export that part first"):
        shapes_latents(tmp_path, cache_folder=str(tmp_path / "cache"), **{**RECIPE, "text": False})
    assert not (tmp_path / "cache").exists()
