"""The configs of the shapes world, shrunk: trained for one step, sampled, exported and read back."""

import importlib
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from videogen_jax.shapes.features import load_shapes_classifier
from videogen_jax.training.build import STAGES, build_source, build_stage, input_sizes
from videogen_jax.training.exporting import export_stage
from videogen_jax.training.loop import TrainingDiverged
from videogen_jax.training.model_config import explicit_fields
from videogen_jax.training.run import run
from videogen_jax.weights.model_folder import ModelFolder
from videogen_jax.weights.parts import load_autoencoder, load_reference, load_stage, load_text_encoder

pytestmark = pytest.mark.usefixtures("drawn_by_numpy")
WIDTH = 8  # of the text states
UNET = {
    "model.unet.block_out_channels": (8,),
    "model.unet.layers_per_block": 1,
    "model.unet.cross_attention": (False,),  # the middle has transformers
    "model.unet.num_heads": 1,
    "model.unet.cross_attention_dim": WIDTH,
    "model.unet.norm_num_groups": 4,
    "model.preview_steps": 1,
}
VAE = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
SHRUNK = {
    "text": {
        "model.text_encoder.hidden_size": WIDTH,
        "model.text_encoder.intermediate_size": 8,
        "model.text_encoder.num_layers": 1,
        "model.text_encoder.num_heads": 1,
        "model.text_encoder.projection_dim": WIDTH,
        "model.video_channels": (8,),
        "data.resolution": 8,
    },
    "autoencoder": {
        **{f"model.autoencoder.{name}": value for name, value in VAE.items()},
        "model.scales": ((1.0, 1), (0.5, 2)),
        "data.resolution": 8,
    },
    "reference": {**UNET, "data.resolution": 4},
    "cascade:resolution=4": {**UNET, "data.num_frames": 2},
    "cascade:resolution=8": {**UNET, "data.num_frames": 2},
    "cascade:resolution=16": {**UNET, "model.unet.reference_attention": (True,), "data.num_frames": 2},
    "temporal": {
        "model.upsampler.flow_widths": (8,),
        "model.upsampler.refine_widths": (8,),
        "data.num_frames": 5,
        "data.resolution": 4,
    },
    "decoder": {
        **{f"model.decoder.{name}": value for name, value in VAE.items()},
        "model.discriminator.channels": (8,),
        "model.adversarial_weight": 0.05,
        "data.num_frames": 2,
        "data.resolution": 4,
        "data.video_resolution": 8,
    },
    "classifier": {
        "model.classifier.widths": (8,),
        "model.classifier.features": 8,
        "model.classifier.num_frames": 2,
        "model.classifier.resolution": 8,
    },
}


class World:
    """A model folder that grows as its parts are trained; `train` gives a stage's config, workdir and end."""

    def __init__(self, root):
        self.root, self.model, self.done = root, root / "model", {}

    def config(self, name):
        file, _, argument = name.partition(":")
        module = importlib.import_module(f"configs.shapes.{file}")
        config = module.get_config(argument) if argument else module.get_config()
        common = {
            "steps": 1,
            "batch_size": 2,
            "sample_count": 1,
            "optimizer.warmup_steps": 0,
            "model_folder": str(self.model),
            "data.num_clips": 4,
        }
        with config.unlocked():
            config.update_from_flattened_dict({**common, **SHRUNK[name if name in SHRUNK else file]})
            if "cache_folder" in config.data:
                config.data.cache_folder = str(self.root / "cache")
        return config

    def train(self, name):
        if name not in self.done:
            config, workdir = self.config(name), self.root / name.replace(":", "_").replace("=", "_")
            if name not in ("text", "autoencoder", "classifier"):
                self.train("autoencoder")
                self.train("text")
            if config.init_from:
                self.train("reference")
                config.init_from = str(self.model / "unet")
            state = run(config, workdir)
            self.done[name] = config, workdir, state, export_stage(config, workdir, self.model)
        return self.done[name]


@pytest.fixture(scope="module")
def world(tmp_path_factory, drawn_by_numpy):
    return World(tmp_path_factory.mktemp("world"))


def read_part(config, folder):
    if config.stage == "text":
        return load_text_encoder(folder.parent).params
    if config.stage == "autoencoder":
        autoencoder, params = load_autoencoder(folder.parent)
        assert autoencoder.scaling_factor > 0
        assert autoencoder.scaling_factor != 1
        assert autoencoder.shift_factor != 0
        return params
    if config.stage == "reference":
        part = load_reference(folder.parent)
        assert part.stage.noise_schedule.alphas_cumprod[-1] == 0
        assert part.sample_size == config.data.resolution
        return part.params
    if config.stage == "classifier":
        network, params = load_shapes_classifier(folder)
        assert network.features == 8
        return params
    stage, params = load_stage(folder, STAGES[config.stage], 4, WIDTH)
    if config.stage == "cascade":
        assert stage.lower_resolution == config.model.lower_resolution
    return params


# The middle stage of the cascade, between the first and the last in all that it has, is left to the slow tests.
MARKS = {"cascade:resolution=8": pytest.mark.slow}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in SHRUNK])
def test_a_shrunk_config_trains_samples_and_exports_a_part_that_reads_back(world, name):
    config, workdir, state, (folder,) = world.train(name)
    (record,) = (json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines())
    assert all(np.isfinite(value) for value in record.values())
    assert int(state.step) == 1
    events = b"".join(path.read_bytes() for path in workdir.glob("events.out.tfevents.*"))
    assert b"GIF89a" in events  # the sample videos

    part = read_part(config, folder)
    (trained,) = (tree for part_name, tree in state.ema.items() if jax.tree.structure(tree) == jax.tree.structure(part))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), part, dict(trained))


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in SHRUNK])
def test_a_stage_says_what_its_examples_and_its_frozen_parts_are(world, name):
    config, *_ = world.train(name)
    stage, model = build_stage(config.stage, explicit_fields(config.model)), ModelFolder(world.model)
    inputs = stage.input_spec(input_sizes(config, stage, model))
    example = build_source(config, stage, model)[0]
    for array, spec in inputs.items():
        groups = example[array].ndim - len(spec.shape)  # text is trained on groups of clips
        assert (example[array].shape[groups:], example[array].dtype) == (spec.shape, spec.dtype)
        assert groups == (config.stage == "text")
    frozen = jax.tree.map(lambda x: (x.shape, x.dtype), stage.load_frozen(model))
    assert frozen == jax.tree.map(lambda x: (x.shape, x.dtype), stage.frozen_spec(inputs))


def test_a_run_records_all_fields_and_an_exported_part_those_that_were_set(world):
    _, workdir, _, (folder,) = world.train("classifier")
    recorded = json.loads((workdir / "config.json").read_text())["model"]["classifier"]
    assert (recorded["patch"], recorded["dtype"]) == (4, "float32")
    assert json.loads((folder / "config.json").read_text()) == {
        "_class_name": "ShapesClassifier",
        "num_classes": [2, 8, 4, 20, 4, 3],
        "widths": [8],
        "features": 8,
        "num_frames": 2,
        "resolution": 8,
    }


def test_decoder_starts_from_the_autoencoder(world):
    config, _, state, _ = world.train("decoder")
    _, vae = load_autoencoder(world.model)
    kernel = vae["decoder"]["conv_in"]["kernel"]
    moved = np.abs(state.params["video_decoder"]["conv_in"]["kernel"] - kernel).max()
    assert 0 < moved <= 1.1 * config.optimizer.learning_rate * (1 + config.optimizer.weight_decay)


def test_the_last_cascade_stage_starts_from_the_reference(world):
    config, _, state, _ = world.train("cascade:resolution=16")
    image = load_reference(world.model).params
    kernel = state.params["cascade_16"]["conv_in"]["kernel"]
    assert kernel.shape[2] == 13  # noisy latents, reference, mask, the stage below
    latents = image["conv_in"]["kernel"]
    start = np.concatenate([latents, config.model.reference_init * latents, np.zeros((3, 3, 5, latents.shape[3]))], 2)
    moved = np.abs(kernel - start).max()
    assert 0 < moved <= 1.1 * config.optimizer.learning_rate * (1 + config.optimizer.weight_decay)


def test_training_can_start_from_exported_parts(world, tmp_path):
    world.train("autoencoder")
    config = world.config("autoencoder")
    config.init_from = str(world.model)
    state = run(config, tmp_path, stop_after=0)
    _, vae = load_autoencoder(world.model)
    jax.tree.map(np.testing.assert_array_equal, state.params["vae"], vae)


def test_the_decoder_alone_goes_on_from_an_exported_autoencoder(world, tmp_path):
    world.train("autoencoder")
    config = world.config("autoencoder:part=decoder")
    config.data.seed += 1  # frames of which the factors would be others
    config.model.scales = ((1.0, 1),)  # one is enough here
    state = run(config, tmp_path)
    start, vae = load_autoencoder(world.model)
    for tree in (state.params["vae"], state.ema["vae"]):
        jax.tree.map(np.testing.assert_array_equal, tree["encoder"], vae["encoder"])
        moved = np.abs(tree["decoder"]["conv_in"]["kernel"] - vae["decoder"]["conv_in"]["kernel"]).max()
        assert 0 < moved <= 1.1 * config.optimizer.learning_rate * (1 + config.optimizer.weight_decay)
    export_stage(config, tmp_path, tmp_path / "model")
    end, exported = load_autoencoder(tmp_path / "model")
    assert (end.scaling_factor, end.shift_factor) == (start.scaling_factor, start.shift_factor)
    jax.tree.map(np.testing.assert_array_equal, exported["encoder"], vae["encoder"])


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("reference", "model.nonsense", 1, "config.model of stage reference has no field nonsense"),
        ("autoencoder", "model.autoencoder.nonsense", 1, "config.model.autoencoder has no field nonsense"),
        ("cascade:resolution=8", "model.reference_frames", "last", "config.model.reference_frames is 'last'"),
        ("cascade:resolution=8", "model.lower_resolution", 8, "config.model.lower_resolution is 8; it must be below 8"),
        ("temporal", "model.factor", 1, "config.model.factor is 1; it must be at least 2"),
        ("text", "stage", "nonsense", "config.stage is 'nonsense'; the stages are text, autoencoder"),
        ("autoencoder", "data.source", "nonsense", "config.data.source is 'nonsense'; it may be shapes_frames"),
        ("autoencoder", "data.nonsense", 1, "config.data of source 'shapes_frames': .*'nonsense'"),
        ("text", "model.text_encoder.vocab_size", 7, "vocab_size is 7, but the tokenizer in .* has 637 entries"),
        ("decoder", "model.perceptual_weight", 1.0, "perceptual_weight is on: set config.perceptual_weights"),
    ],
)
def test_config_that_cannot_work_is_refused_by_name(world, tmp_path, name, field, value, message):
    world.train("autoencoder")  # a decoder reads it
    config = world.config(name)
    with config.unlocked():
        config.update_from_flattened_dict({field: value})
    if name == "decoder":
        world.train("decoder")  # its cache is there
    with pytest.raises(ValueError, match=message):
        run(config, tmp_path)


def test_export_names_what_is_missing(world, tmp_path):
    config, workdir, *_ = world.train("autoencoder")
    with pytest.raises(ValueError, match="holds no run: it has no checkpoints folder"):
        export_stage(config, tmp_path, tmp_path / "model")
    with pytest.raises(ValueError, match=r"no checkpoint of step 7 in .*; those saved are 1"):
        export_stage(config, workdir, tmp_path / "model", step=7)


def test_words_are_trained_alone_in_an_encoder_that_is_there(world, tmp_path):
    world.train("text")
    config = world.config("text:words=circling")
    config.model.trained_words = ("clockwise", "widdershins")
    with pytest.raises(ValueError, match=r"config\.model\.trained_words: 'widdershins' is \d+ tokens"):
        run(config, tmp_path)
    config.init_from = "elsewhere"
    assert config.model_folder == str(world.model)  # to set the one leaves the other alone
    config = world.config("text:words=circling")
    config.optimizer.weight_decay = 0.01
    with pytest.raises(ValueError, match=r"config\.optimizer\.weight_decay is 0\.01, but must be 0"):
        run(config, tmp_path)
    config = world.config("text:words=circling")
    config.steps = 2
    run(config, tmp_path)
    stage = build_stage(config.stage, explicit_fields(config.model))
    trained = stage.load_frozen(ModelFolder(world.model))["trained_tokens"]
    spec = stage.frozen_spec({})["trained_tokens"]
    assert (trained.shape, trained.dtype) == (spec.shape, spec.dtype) == ((2,), np.int32)
    export_stage(config, tmp_path, tmp_path / "model")
    before, after = (load_text_encoder(folder) for folder in (world.model, tmp_path / "model"))
    changed = jax.tree_util.tree_map(lambda a, b: (a != b).any(axis=-1), before.params, after.params)
    embeddings = changed["text_model"]["embeddings"].pop("token_embedding")["embedding"]
    assert not any(np.any(x) for x in jax.tree.leaves(changed))
    words = [before.tokenizer.decode([token]).strip() for token in np.flatnonzero(embeddings)]
    assert sorted(words) == ["clockwise", "counterclockwise"]


def test_settings_of_stages_are_read_without_jax():
    code = "import sys, videogen_jax.stages; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_divergence_names_the_stage(world, tmp_path):
    config = world.config("text")
    config.steps = 3
    config.log_every = 1
    config.optimizer.learning_rate = float("nan")
    with pytest.raises(TrainingDiverged, match="stage text: loss is nan at step 2"):
        run(config, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 5, "optimizer.warmup_steps": 100}, r"config\.optimizer\.warmup_steps is 100.*config\.steps, 5"),
        ({"mesh.fsdp": 3}, r"config\.mesh"),
        ({"keep_checkpoints": 0}, r"config\.keep_checkpoints is 0"),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_clips_are_encoded(change, message, tmp_path):
    config = importlib.import_module("configs.shapes.reference").get_config()
    config.model_folder = "videogen_jax/embedded/shapes"
    config.data.cache_folder = str(tmp_path / "cache")
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        run(config, tmp_path / "run")
    assert not (tmp_path / "cache").exists()
