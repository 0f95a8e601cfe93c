"""Whole text-to-image models, written by diffusers with random weights, against diffusers' own pipelines."""

import json
import shutil

import jax
import numpy as np
import pytest

from videogen_jax.sampling.text_to_image import TextToImage
from videogen_jax.stages.settings import StageSettings
from videogen_jax.weights.parts import load_model_tokenizer
from videogen_jax.weights.tokenizer import load_tokenizer, tokenize, train_tokenizer

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
LENGTH = 12
PROMPTS = ["a small red circle", "a blue square on gray"]
FAMILIES = {  # UNet, width, heads, activation of the text encoders, scheduler
    "1.x": (
        {"cross_attention_dim": 16, "attention_head_dim": 2, "block_out_channels": (16, 32)},
        [(16, "quick_gelu", None)],
        ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}),
    ),
    "2.1": (
        {
            "cross_attention_dim": 16,
            "attention_head_dim": (2, 4),
            "block_out_channels": (16, 32),
            "use_linear_projection": True,
        },
        [(16, "gelu", None)],
        ("DDIMScheduler", {"prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False}),
    ),
    "xl": (
        {
            "cross_attention_dim": 40,
            "attention_head_dim": (1, 2),
            "block_out_channels": (16, 32),
            "use_linear_projection": True,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 12,
        },
        [(16, "quick_gelu", None), (24, "gelu", 12)],
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}),
    ),
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(PROMPTS, folder, LENGTH)
    return folder


def make_pipeline(family: str, tokenizer_folder):
    """A diffusers pipeline with random weights, none of them at zero."""
    torch.manual_seed(0)
    unet_fields, encoders, (scheduler, scheduler_fields) = FAMILIES[family]
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    unet = diffusers.UNet2DConditionModel(
        **{**blocks, **unet_fields}, layers_per_block=1, norm_num_groups=8, sample_size=8
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.5,
        sample_size=16,
    )
    tokenizer = load_tokenizer(tokenizer_folder)
    texts = []
    for width, activation, projection in encoders:
        config = transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            hidden_act=activation,
            max_position_embeddings=LENGTH,
            eos_token_id=tokenizer.eos_token_id,
            **({} if projection is None else {"projection_dim": projection}),
        )
        kind = transformers.CLIPTextModel if projection is None else transformers.CLIPTextModelWithProjection
        texts.append(kind(config))
    for network in (unet, vae, *texts):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1) * 0.1, std=0.2)
        network.eval()
    parts = {
        "unet": unet,
        "vae": vae,
        "text_encoder": texts[0],
        "tokenizer": tokenizer,
        "scheduler": getattr(diffusers, scheduler)(**STABLE_DIFFUSION, **scheduler_fields),
    }
    if len(texts) == 2:
        return diffusers.StableDiffusionXLPipeline(
            **parts, text_encoder_2=texts[1], tokenizer_2=load_tokenizer(tokenizer_folder)
        )
    return diffusers.StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tokenizers, tmp_path_factory):
    """The name of a family, a pipeline of diffusers, and the folder that it wrote."""
    pipeline = make_pipeline(request.param, tokenizers)
    pipeline.set_progress_bar_config(disable=True)
    folder = tmp_path_factory.mktemp("model")
    pipeline.save_pretrained(folder)
    return request.param, pipeline, folder


@pytest.mark.parametrize("files", [("tokenizer.json",), ("vocab.json", "merges.txt")])
def test_a_tokenizer_is_read_by_its_documented_files(tokenizers, tmp_path, files):
    """Without tokenizer_config.json, which holds the length: it is then the text encoder's."""
    whole = load_tokenizer(tokenizers)
    whole.save_pretrained(tmp_path / "saved")
    (tmp_path / "tokenizer").mkdir()
    for name in files:
        source = tokenizers if (tokenizers / name).exists() else tmp_path / "saved"
        shutil.copy(source / name, tmp_path / "tokenizer")
    (tmp_path / "text_encoder").mkdir()
    config = {"architectures": ["CLIPTextModel"], "max_position_embeddings": LENGTH}
    (tmp_path / "text_encoder" / "config.json").write_text(json.dumps(config))
    ids = tokenize(load_model_tokenizer(tmp_path), PROMPTS)
    np.testing.assert_array_equal(ids, tokenize(whole, PROMPTS))
    assert ids.shape[1] == LENGTH


def test_images_of_twenty_guided_steps_are_those_of_diffusers(family):
    name, pipeline, folder = family
    ours, params = TextToImage.from_pretrained(folder)
    assert ours.sampler == {"1.x": "pndm", "2.1": "ddim", "xl": "euler"}[name]
    assert (ours.sample_size, ours.resolution) == (8, 16)
    keys = jax.vmap(jax.random.key)(np.arange(2))

    def program(params, tokens, keys):
        prompts_and_empty = ours.encode(params, tokens, (8, 8))
        settings = StageSettings(guidance_scale=5.0, steps=20, sampler=ours.sampler)
        latents = ours.stage.sample_latents(params["unet"], keys, *prompts_and_empty, (8, 8), settings)
        return (*prompts_and_empty, ours.decode(params, latents))

    prompts, _, images = jax.jit(program)(params, ours.tokenize(PROMPTS), keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, (8, 8, 4)))(keys)
    with torch.no_grad():
        context = pipeline.encode_prompt(
            PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        np.testing.assert_allclose(prompts.context, context[0].numpy(), atol=1e-5)
        expected = pipeline(
            PROMPTS,
            num_inference_steps=20,
            guidance_scale=5.0,
            latents=torch.from_numpy(np.array(noise)).permute(0, 3, 1, 2),
            output_type="np",
        ).images
    assert expected.std() > 0.04
    np.testing.assert_allclose(np.clip(images / 2 + 0.5, 0, 1), expected, atol=1e-3)


def test_a_model_whose_parts_do_not_fit_each_other_says_so(tokenizers, tmp_path):
    make_pipeline("1.x", tokenizers).save_pretrained(tmp_path / "model")

    def change(part, name, **fields):
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "model", folder)
        path = folder / part / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
        return folder

    for part, name, fields, message in (
        ("unet", "config.json", {"cross_attention_dim": 24}, "of another shape"),
        ("unet", "config.json", {"dual_cross_attention": True}, "dual_cross_attention is True"),
        ("unet", "config.json", {"in_channels": 9}, "of another shape"),
        ("vae", "config.json", {"act_fn": "relu"}, "act_fn is 'relu'"),
        ("text_encoder", "config.json", {"hidden_act": "relu"}, "hidden_act must be one of"),
        ("scheduler", "scheduler_config.json", {"_class_name": "LCMScheduler"}, "describes a LCMScheduler"),
    ):
        with pytest.raises(ValueError, match=message):
            TextToImage.from_pretrained(change(part, name, **fields))
