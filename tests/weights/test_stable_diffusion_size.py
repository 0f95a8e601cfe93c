"""Stable Diffusion 1.5 at its true size, random weights: one UNet step and the autoencoder at 512x512."""

import gc

import jax
import numpy as np
import pytest

from videogen_jax.weights.parts import load_autoencoder, load_reference

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.slow
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def torch_input(x):
    """Channels first in memory too: on 512x512 channels-last, PyTorch's own error is 1.4e-4 (to float64), else 8e-6."""
    return torch.from_numpy(x).movedim(-1, 1).contiguous()


def test_one_unet_step(tmp_path):
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64).eval()
    assert sum(x.numel() for x in theirs.parameters()) == 859_520_964
    theirs.save_pretrained(tmp_path / "unet", max_shard_size="1GB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 2
    diffusers.PNDMScheduler(**SCHEDULER).save_pretrained(tmp_path / "scheduler")
    x, context = normal(1, 64, 64, 4), normal(1, 77, 768)
    with torch.no_grad():
        expected = theirs(torch_input(x), torch.tensor([500]), torch.from_numpy(context)).sample.movedim(1, -1).numpy()
    del theirs
    gc.collect()
    part = load_reference(tmp_path)
    found = jax.jit(part.stage.predict)(part.params, x[:, None], np.float32([500]), context)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_autoencoder_at_512(tmp_path):
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()
    theirs.save_pretrained(tmp_path / "vae")
    frames, latents = np.tanh(normal(1, 512, 512, 3)), normal(1, 64, 64, 4)
    with torch.no_grad():
        mean = theirs.encode(torch_input(frames)).latent_dist.mean.movedim(1, -1).numpy()
        decoded = theirs.decode(torch_input(latents)).sample.movedim(1, -1).numpy()
    del theirs
    gc.collect()
    ours, params = load_autoencoder(tmp_path)
    np.testing.assert_allclose(jax.jit(ours.encode)(params, frames), mean * ours.scaling_factor, atol=1e-4)
    found = jax.jit(ours.decode)(params, latents * ours.scaling_factor)
    np.testing.assert_allclose(found, decoded, atol=1e-4)
