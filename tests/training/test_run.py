"""What training reads of the models that a config names, without training."""

import huggingface_hub
import jax
import numpy as np
import pytest

from configs.shapes import cascade, decoder
from tests.tiny_model import FRAMES, LENGTH, WIDTH
from videogen_jax.training.exporting import Export
from videogen_jax.training.run import load_inputs
from videogen_jax.weights.parts import load_autoencoder, load_text_encoder
from videogen_jax.weights.tokenizer import tokenize


@pytest.fixture
def hub(tiny_model, monkeypatch):
    """A hub with the tiny model alone, under any id: a list of the ids that are asked for."""
    asked = []

    def snapshot_download(repo, **_):
        asked.append(repo)
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: ["vae/config.json"])
    return asked


def use_hub(config, tmp_path, resolution):
    config.model_folder = "owner/model"
    config.data.update({"cache_folder": str(tmp_path / "cache"), "num_clips": 2, "num_frames": FRAMES})
    config.data.resolution = resolution
    return config


def test_a_decoder_reads_its_frozen_parts_and_first_weights_from_hub_ids(hub, tiny_model, tmp_path):
    config = use_hub(decoder.get_config(), tmp_path, 4)
    config.data.video_resolution = 8
    config.model.decoder = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    config.model.decoder.use_post_quant_conv = True
    inputs = load_inputs(config, tmp_path / "run")
    assert hub == ["owner/model"]  # resolved once
    assert (inputs.frozen["scaling_factor"], inputs.frozen["shift_factor"]) == (np.float32(0.5), np.float32(0.1))
    assert inputs.decode(np.zeros((1, 2, 4, 4, 4), np.float32)).shape == (1, 2, 8, 8, 3)
    example = {name: array[None] for name, array in inputs.source[0].items()}
    fresh = jax.eval_shape(inputs.stage.init, jax.random.key(0), example)
    fresh = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), fresh)
    _, vae = load_autoencoder(tiny_model)
    start = inputs.initial_params(fresh)["video_decoder"]
    np.testing.assert_array_equal(start["conv_in"]["kernel"], vae["decoder"]["conv_in"]["kernel"])

    config.init_from = "owner/start"
    start = load_inputs(config, tmp_path / "run").initial_params(fresh)["video_decoder"]
    assert hub == ["owner/model", "owner/model", "owner/start"]
    assert not np.array_equal(start["conv_in"]["kernel"], vae["decoder"]["conv_in"]["kernel"])
    assert all(np.any(x) for x in jax.tree.leaves(start))


def test_a_cascade_reads_text_states_from_a_hub_id_and_is_exported(hub, tiny_model, tmp_path):
    config = use_hub(cascade.get_config("4"), tmp_path, 4)
    config.model.unet.update({"cross_attention_dim": WIDTH, "block_out_channels": (16,), "cross_attention": (False,)})
    inputs = load_inputs(config, tmp_path / "run")
    text = load_text_encoder(tiny_model)
    empty = text.encode(text.params, tokenize(text.tokenizer, [""]))[0]
    assert empty.shape == (LENGTH, WIDTH)
    np.testing.assert_array_equal(inputs.frozen["null_context"], empty)
    fresh = {"cascade_4": {}}
    assert inputs.initial_params(fresh) is fresh  # from scratch
    export = Export(config, inputs.stage, tmp_path / "model", "float16", False)
    assert (export.model.path, export.init_from) == (tiny_model, None)
    export.copy_from_model("tokenizer")
    assert (tmp_path / "model" / "tokenizer" / "vocab.json").is_file()
