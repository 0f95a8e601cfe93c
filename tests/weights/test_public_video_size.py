"""Public video networks at their true size, random weights: one UNet step at 8 frames of 24x40 latents."""

import gc

import jax
import numpy as np
import pytest

from videogen_jax.models.i2vgen import I2VGenXLUNet, image_latents_of
from videogen_jax.weights.folder import load_part
from videogen_jax.weights.public_parts import load_image_to_video

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.slow
FRAMES, HEIGHT, WIDTH = 8, 24, 40
TOLERANCE = 1e-5  # of the largest value


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def without_zeros(network):
    """Random numbers for the parameters that begin at zero, which would hide layers."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.numel() == 1 or not parameter.any():
                spread = 0.5 if name.endswith("mix_factor") else 0.5 / max(parameter[0].numel(), 16) ** 0.5
                parameter.normal_(std=spread)
    return network.eval()


def test_one_step_of_stable_video_diffusion(tmp_path):
    torch.manual_seed(0)
    theirs = without_zeros(diffusers.UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20)))
    count = sum(x.numel() for x in theirs.parameters())
    assert count == 1_524_623_082
    theirs.save_pretrained(tmp_path / "unet", max_shard_size="2GB")
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0,
        timestep_type="continuous", timestep_spacing="leading", steps_offset=1,
    )  # fmt: skip
    scheduler.save_pretrained(tmp_path / "scheduler")
    x, token, numbers = normal(1, FRAMES, HEIGHT, WIDTH, 8), normal(1, 1, 1024, seed=1), np.float32([[6, 127, 0.02]])
    with torch.no_grad():
        frames = torch.from_numpy(np.moveaxis(x, -1, 2).copy())
        output = theirs(frames, torch.tensor([0.7]), torch.from_numpy(token), torch.from_numpy(numbers)).sample
    expected = np.moveaxis(output.numpy(), 2, -1)
    del theirs
    gc.collect()
    stage, params = load_image_to_video(tmp_path, 1024, 72)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    found = jax.jit(stage.predict)(params, x, np.float32([0.7]), token, added_numbers=numbers)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"Stable Video Diffusion {error:.1e}")
    assert error < TOLERANCE


def test_one_step_of_i2vgen_xl(tmp_path):
    torch.manual_seed(0)
    theirs = without_zeros(diffusers.I2VGenXLUNet())
    count = sum(x.numel() for x in theirs.parameters())
    assert count == 1_420_469_224
    theirs.save_pretrained(tmp_path / "unet", max_shard_size="2GB")
    latents, context, embedding = normal(1, FRAMES, HEIGHT, WIDTH, 4), normal(1, 77, 1024, seed=1), normal(1, 1024)
    image = np.asarray(image_latents_of(normal(1, HEIGHT, WIDTH, 4, seed=2), FRAMES))
    timesteps, fps = np.float32([500]), np.float32([16])
    with torch.no_grad():
        output = theirs(
            torch.from_numpy(np.moveaxis(latents, -1, 1).copy()),
            torch.from_numpy(timesteps),
            torch.from_numpy(fps),
            torch.from_numpy(np.moveaxis(image, -1, 1).copy()),
            torch.from_numpy(embedding),
            torch.from_numpy(context),
        ).sample
    expected = np.moveaxis(output.numpy(), 1, -1)
    del theirs
    gc.collect()
    network, arguments = I2VGenXLUNet(), (latents, timesteps, context, image, embedding, fps)
    params = load_part(tmp_path / "unet", jax.eval_shape(network.init, jax.random.key(0), *arguments)["params"])
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    found = jax.jit(network.apply)({"params": params}, *arguments)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"I2VGen-XL {error:.1e}")
    assert error < TOLERANCE
