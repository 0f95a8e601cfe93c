"""CLIP's image encoder in a video model's folder, written by transformers with random weights."""

import json

import jax
import numpy as np
import pytest

from videogen_jax.weights.diffusers_config import VISION_NAMES, vision_encoder_fields
from videogen_jax.weights.public_parts import load_image_encoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IMAGES = np.random.default_rng(0).uniform(-1.0, 1.0, (2, 40, 72, 3)).astype(np.float32)
# As Stable Video Diffusion's image_encoder/config.json was published.
PUBLISHED = {
    "_name_or_path": "image_encoder",
    "architectures": ["CLIPVisionModelWithProjection"],
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "image_size": 224,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 5120,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 32,
    "patch_size": 14,
    "projection_dim": 1024,
    "torch_dtype": "float16",
    "transformers_version": "4.34.0.dev0",
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        patch_size=7,
        image_size=30,
        projection_dim=24,
        hidden_act="gelu",
    )
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def embed(part, images=IMAGES):
    return np.asarray(jax.jit(part.encode)(part.params, images))


def test_embeddings_equal_those_of_stable_video_diffusions_pipeline(model, tmp_path):
    module = "diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion"
    pipeline = pytest.importorskip(module)
    model.save_pretrained(tmp_path / "image_encoder")
    images = torch.from_numpy(IMAGES).movedim(-1, 1).contiguous()
    images = (pipeline._resize_with_antialiasing(images, (30, 30)) + 1.0) / 2.0
    switches = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale"), False)
    pixels = transformers.CLIPImageProcessor()(images, return_tensors="pt", do_normalize=True, **switches).pixel_values
    with torch.no_grad():
        expected = model(pixels).image_embeds.numpy()

    part = load_image_encoder(tmp_path)
    found = embed(part)
    assert found.shape == (2, 24)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    half = embed(load_image_encoder(tmp_path, "bfloat16"))
    assert half.dtype == np.float32
    assert 1e-4 < np.abs(half - expected).max() / np.abs(expected).max() < 0.1


def test_a_float16_file_and_shards_are_read(model, tmp_path):
    model.save_pretrained(tmp_path / "whole/image_encoder")
    model.save_pretrained(tmp_path / "shards/image_encoder", max_shard_size="20KB")
    assert len(list((tmp_path / "shards/image_encoder").glob("model-*.safetensors"))) > 1
    half = transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path / "whole/image_encoder").half()
    half.save_pretrained(tmp_path / "half/image_encoder", variant="fp16")
    assert (tmp_path / "half/image_encoder/model.fp16.safetensors").is_file()

    whole, shards, half = (load_image_encoder(tmp_path / name) for name in ("whole", "shards", "half"))
    jax.tree.map(np.testing.assert_array_equal, shards.params, whole.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {np.dtype(np.float32)}
    expected = embed(whole)
    np.testing.assert_allclose(embed(half), expected, atol=5e-3 * np.abs(expected).max())


def test_the_published_config_is_vit_h():
    fields = vision_encoder_fields(PUBLISHED, "config.json")
    assert fields == {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_layers": 32,
        "num_heads": 16,
        "patch_size": 14,
        "projection_dim": 1024,
        "image_size": 224,
        "hidden_act": "gelu",
    }
    # What a config leaves out has transformers' default.
    default = transformers.CLIPVisionConfig()
    named = {name: getattr(default, name) for name in VISION_NAMES}
    assert vision_encoder_fields({}, "config.json") == vision_encoder_fields(named, "config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["CLIPModel"]}, "describes a CLIPModel, but a CLIPVisionModelWithProjection is needed"),
        ({"model_type": "siglip_vision_model"}, "model_type is 'siglip_vision_model'; only 'clip_vision_model'"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-06; only 1e-05"),
        ({"num_channels": 4}, "num_channels is 4; only 3"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; supported are quick_gelu, gelu"),
        ({"patch_size": [14, 14]}, r"patch_size is \[14, 14\]; it must be one number"),
        ({"num_registers": 4}, r"the field num_registers \(4\) is not supported"),
    ],
)
def test_other_settings_are_named(change, message):
    with pytest.raises(ValueError, match=f"^config.json.*{message}"):
        vision_encoder_fields(PUBLISHED | change, "config.json")


def test_what_does_not_fit_is_named(model, tmp_path):
    with pytest.raises(ValueError, match="image_encoder does not exist"):
        load_image_encoder(tmp_path)
    folder = tmp_path / "image_encoder"
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"image_size": 37}))
    with pytest.raises(ValueError, match=r"position_embedding\.weight is \(17, 32\), not \(26, 32\)"):
        load_image_encoder(tmp_path)
