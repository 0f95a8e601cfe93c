"""Parts in the public layout: diffusers and Flax files in, files for diffusers out."""

import json

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from videogen_jax.runtime.files import save_json
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.training.build import build_stage
from videogen_jax.weights.diffusers_config import public_config, unet_fields
from videogen_jax.weights.folder import load_config, load_part, save_part
from videogen_jax.weights.model_folder import ModelFolder
from videogen_jax.weights.naming import to_public
from videogen_jax.weights.parts import (
    load_autoencoder,
    load_reference,
    load_stage,
    temporal_autoencoder_part,
)
from videogen_jax.weights.scheduler_config import save_scheduler

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "cross_attention": (False, True),
    "num_heads": 2,
    "cross_attention_dim": 6,
    "norm_num_groups": 4,
}
AUTOENCODER = {"block_out_channels": (32, 64), "layers_per_block": 2, "norm_num_groups": 32}


def random_like(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0.0, 0.15, x.shape).astype(np.float32), shapes)


def randomize(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return module.eval()


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def channels_first(x):
    return torch.from_numpy(np.array(x)).movedim(-1, 1)


def channels_last(x):
    return x.detach().movedim(1, -1).numpy()


def test_a_reference_trained_here_opens_in_diffusers(tmp_path):
    stage = build_stage("reference", {"unet": UNET, "schedule": {"name": "cosine", "rescale_zero_terminal_snr": True}})
    x, context = normal(2, 1, 8, 8, 4), normal(2, 5, 6)
    shapes = jax.eval_shape(stage.init, jax.random.key(0), {"latents": x, "context": context})["unet"]
    params = random_like(shapes)
    ((folder, config),) = stage.parts().values()
    save_part(tmp_path / folder, public_config(config, 8), params, dtype="float32")
    save_scheduler(tmp_path, stage)

    theirs = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet").eval()
    with torch.no_grad():
        arguments = (channels_first(x[:, 0]), torch.tensor([10, 700]), torch.from_numpy(context))
        expected = channels_last(theirs(*arguments).sample)
    actual = jax.jit(stage.predict)(params, x, np.float32([10, 700]), context)[:, 0]
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "scheduler")
    np.testing.assert_allclose(scheduler.alphas_cumprod, stage.noise_schedule.alphas_cumprod, atol=1e-6)

    again = load_reference(tmp_path)
    assert again.sample_size == 8
    assert again.stage.noise_schedule.alphas_cumprod[-1] == 0
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


def test_an_autoencoder_trained_here_opens_in_diffusers(tmp_path):
    stage = build_stage("autoencoder", {"autoencoder": {**AUTOENCODER, "latent_channels": 4}})
    x = normal(2, 16, 16, 3)
    video = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.uint8)
    params = random_like(jax.eval_shape(stage.init, jax.random.key(0), {"images": video})["vae"])
    ((folder, config),) = stage.parts().values()
    config = public_config({**config, "scaling_factor": 0.5, "shift_factor": 0.1}, 16)
    save_part(tmp_path / folder, config, params, dtype="float32")

    theirs = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae").eval()
    assert (theirs.config.scaling_factor, theirs.config.shift_factor) == (0.5, 0.1)
    ours, read = load_autoencoder(tmp_path)
    with torch.no_grad():
        mean = theirs.encode(channels_first(x)).latent_dist.mean
        decoded = channels_last(theirs.decode(mean).sample)
    latents = jax.jit(ours.encode)(read, x)
    np.testing.assert_allclose(latents, (channels_last(mean) - 0.1) * 0.5, atol=1e-4)
    np.testing.assert_allclose(jax.jit(ours.decode)(read, latents), decoded, atol=1e-4)


def test_stable_video_diffusions_decoder_is_read_and_written(tmp_path):
    theirs = randomize(
        diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 64), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 2
        )
    )
    theirs.save_pretrained(tmp_path / "svd")
    stage, params = load_stage(tmp_path / "svd", DecoderStage, 4, 1)
    latents = normal(1, 3, 4, 4, 4)
    with torch.no_grad():
        expected = channels_last(theirs.decode(channels_first(latents[0]), num_frames=3).sample)
    decode = jax.jit(stage.decode)
    np.testing.assert_allclose(decode(params, latents)[0], expected, atol=1e-4)

    # Its encoder as a plain autoencoder, with an unused decoder, to which the export joins the video decoder again.
    image = randomize(
        diffusers.AutoencoderKL(
            block_out_channels=(32, 64),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
    )
    image.encoder.load_state_dict(theirs.encoder.state_dict())
    image.quant_conv.load_state_dict(theirs.quant_conv.state_dict())
    image.save_pretrained(tmp_path / "model" / "vae")
    config, joined = temporal_autoencoder_part(tmp_path / "model", stage.decoder, params)
    save_part(tmp_path / "back", config, joined, dtype="float32")
    back = diffusers.AutoencoderKLTemporalDecoder.from_pretrained(tmp_path / "back")
    state, written = theirs.state_dict(), back.state_dict()
    assert set(state) == set(written)
    assert all(torch.equal(state[name], written[name]) for name in state)


def test_stable_video_diffusions_autoencoder_has_an_encoder_and_decodes_frame_by_frame(tmp_path):
    theirs = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 2
    )
    theirs = randomize(theirs)
    theirs.save_pretrained(tmp_path / "vae")
    x, latents = normal(2, 16, 24, 3), normal(2, 4, 6, 4)
    with torch.no_grad():
        mean = channels_last(theirs.encode(channels_first(x)).latent_dist.mean)
        decoded = channels_last(theirs.decode(channels_first(latents), num_frames=1).sample)
        as_clip = channels_last(theirs.decode(channels_first(latents), num_frames=2).sample)

    ours, params = load_autoencoder(tmp_path)
    assert (ours.scaling_factor, ours.shift_factor, ours.network.downsampling) == (0.18215, 0.0, 2)
    found = jax.jit(ours.encode_unscaled)(params, x)
    np.testing.assert_allclose(found, mean, rtol=0, atol=1e-5 * np.abs(mean).max())
    np.testing.assert_allclose(jax.jit(ours.encode)(params, x), found * 0.18215, rtol=1e-5)
    images = jax.jit(ours.decode)(params, latents * 0.18215)
    np.testing.assert_allclose(images, decoded, rtol=0, atol=1e-5 * np.abs(decoded).max())
    assert np.abs(as_clip - decoded).max() > 1e-2 * np.abs(decoded).max()  # neighbours matter

    # Its video decoder: read by itself, and as the start of a decoder that is trained for this model.
    stage, decoder = load_stage(tmp_path / "vae", DecoderStage, 4, 1)
    jax.tree.map(np.testing.assert_array_equal, decoder, params["decoder"])
    fresh = {"video_decoder": jax.tree.map(np.zeros_like, decoder), "discriminator": {}}
    warm = stage.warm_start(fresh, ModelFolder(str(tmp_path)), None)
    jax.tree.map(np.testing.assert_array_equal, warm, {"video_decoder": decoder, "discriminator": {}})
    config, joined = temporal_autoencoder_part(tmp_path, stage.decoder, decoder)
    assert config["_class_name"] == "AutoencoderKLTemporalDecoder"
    jax.tree.map(np.testing.assert_array_equal, joined, params)


def test_an_autoencoder_of_another_kind_is_named(tmp_path):
    config = {"_class_name": "AutoencoderKLTemporalDecoder", "block_out_channels": [32, 64]}
    for change, message in (
        ({"_class_name": "AutoencoderTiny"}, "describes a AutoencoderTiny, but a AutoencoderKL is needed"),
        ({"down_block_types": ["DownEncoderBlock2D"]}, "down_block_types must be 2 times DownEncoderBlock2D"),
        ({"use_quant_conv": False}, r"the field use_quant_conv \(False\) is not supported"),
    ):
        save_json(tmp_path / "vae/config.json", config | change)
        with pytest.raises(ValueError, match=message):
            load_autoencoder(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm_num_groups": 4}, "groups of 32, but norm_num_groups is 4"),
        ({"layers_per_block": 1}, "has mid_block_layers 2"),
        ({"use_post_quant_conv": True}, "with a post_quant_conv has no Auto"),
        ({"block_out_channels": (32, 32)}, "block_out_channels is .32, 32., the encoder's .32, 64."),
    ],
)
def test_a_decoder_that_diffusers_does_not_have_is_named(tmp_path, fields, message):
    stage = build_stage("autoencoder", {"autoencoder": {**AUTOENCODER, "latent_channels": 4}})
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.uint8)
    params = random_like(jax.eval_shape(stage.init, jax.random.key(0), {"images": image})["vae"])
    config = public_config({**stage.parts()["vae"][1], "scaling_factor": 0.5, "shift_factor": 0.0})
    save_part(tmp_path / "vae", config, params)
    with pytest.raises(ValueError, match=message):
        temporal_autoencoder_part(tmp_path, {**AUTOENCODER, **fields}, {})


def test_msgpack_of_the_old_flax_class_and_safetensors_are_one_tree(tmp_path):
    theirs = randomize(
        diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=6,
            attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
    )
    theirs.save_pretrained(tmp_path / "torch")
    config = load_config(tmp_path / "torch")
    stage = build_stage("reference", {"unet": unet_fields(config, "config.json")})
    batch = {"latents": normal(1, 1, 8, 8, 4), "context": normal(1, 2, 6)}
    template = jax.eval_shape(stage.init, jax.random.key(0), batch)["unet"]
    expected = load_part(tmp_path / "torch", template)

    # FlaxUNet2DConditionModel joined list indices with an underscore, and kept kernels as flax has them.
    tree: dict = {}
    for name, tensor in load_file(tmp_path / "torch" / "diffusion_pytorch_model.safetensors").items():
        *modules, leaf = name.split(".")
        joined = []
        for module in modules:
            if module.isdigit():
                joined[-1] += f"_{module}"
            else:
                joined.append(module)
        if leaf == "weight":
            leaf = "scale" if tensor.ndim == 1 else "kernel"
            tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
        node = tree
        for module in joined:
            node = node.setdefault(module, {})
        node[leaf] = np.ascontiguousarray(tensor)
    (tmp_path / "flax").mkdir()
    (tmp_path / "flax" / "diffusion_flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    (tmp_path / "flax" / "config.json").write_text(json.dumps(config))
    read = load_part(tmp_path / "flax", template)
    assert jax.tree.structure(read) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, read, expected)
    assert set(to_public(read)) == set(theirs.state_dict())
