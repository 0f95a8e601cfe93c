"""CLIP's two towers and its preprocessing against transformers, on random weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

import videogen_jax
from videogen_jax.metrics.networks import clip

TOKENIZER = Path(videogen_jax.__file__).parent / "embedded/shapes/tokenizer"
CAPTIONS = ["a small red circle moving right slowly on a gray background", "a large blue star growing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small CLIP with everything at random, in transformers' layout."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    vision = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**vision, "hidden_size": 32, "vocab_size": 637, "eos_token_id": 636, "bos_token_id": 635}
    vision |= {"image_size": 64, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    model = CLIPModel(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder, safe_serialization=True)
    shutil.copytree(TOKENIZER, folder, dirs_exist_ok=True)
    return folder


def test_both_towers(folder):
    found = clip.load_clip(folder)
    model = CLIPModel.from_pretrained(folder).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    pixels = torch.from_numpy(clip.preprocess(images, 64)).permute(0, 3, 1, 2)
    tokens = found.tokenizer(CAPTIONS, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=tokens, pixel_values=pixels)
    np.testing.assert_allclose(found.embed_images(images), expected.image_embeds, atol=1e-4 * 0.5)
    np.testing.assert_allclose(found.embed_texts(CAPTIONS), expected.text_embeds, atol=1e-4 * 0.5)


@pytest.mark.parametrize("shape", [(64, 64), (50, 91), (200, 130)])
def test_preprocess(shape):
    images = np.random.default_rng(1).integers(0, 256, (2, *shape, 3)).astype(np.uint8)
    processor = CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    expected = processor([Image.fromarray(image) for image in images], return_tensors="np")["pixel_values"]
    difference = np.abs(clip.preprocess(images, 64) - expected.transpose(0, 2, 3, 1))
    assert difference.max() < 0.03  # one of 255 steps is 0.015: rounding to whole numbers may fall otherwise
    assert difference.mean() < 1e-3


def test_what_does_not_fit_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        clip.load_clip(TOKENIZER)
    shutil.copytree(folder, tmp_path / "clip")
    config = tmp_path / "clip/config.json"
    config.write_text(config.read_text().replace('"patch_size": 16', '"patch_size": 32'))
    with pytest.raises(ValueError, match=r"patch_embedding\.weight is \(48, 3, 16, 16\), not \(48, 3, 32, 32\)"):
        clip.load_clip(tmp_path / "clip")
