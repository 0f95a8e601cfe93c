"""Each kind of temporal layers against diffusers' network of that kind, with random weights, none of them at zero."""

import diffusers
import jax
import numpy as np
import pytest
import torch

from videogen_jax.models.unet import UNet
from videogen_jax.weights.naming import from_public

BATCH, FRAMES, HEIGHT, WIDTH = 2, 5, 8, 16
FIELDS = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "cross_attention": (True, False),
    "cross_attention_dim": 12,
    "norm_num_groups": 8,
}
BLOCKS = {
    "layers_per_block": 1,
    "cross_attention_dim": 12,
}
LIMIT = 1e-5  # of the largest value; 1e-4 would not notice all of Stable Video Diffusion's epsilons


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomize(module, gain=0.7):
    """Random parameters; the smaller the gain, the smaller the variance that the group norms divide by."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("mix_factor"):
                p.copy_(noise.sign() * (0.5 + noise.abs()))
            elif p.ndim > 1:
                p.copy_(gain / np.sqrt(p[0].numel()) * noise)
            else:
                p.copy_(gain * 0.3 * noise + ("norm" in name and name.endswith("weight")))
    return module.eval()


def state(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


def channels_second(video):
    """`(B, T, H, W, C)` -> torch `(B, C, T, H, W)`."""
    return torch.from_numpy(np.moveaxis(video, -1, 1).copy())


def relative_error(actual, expected):
    return np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()


def read_params(model, module, *args, **kwargs):
    template = jax.eval_shape(model.init, jax.random.key(0), *args, **kwargs)["params"]
    return from_public(state(module), template)


# Stable Video Diffusion

SVD_EPS = {"norm_eps": 1e-5, "down_norm_eps": (1e-6, 1e-5), "up_norm_eps": 1e-6}


@pytest.fixture(scope="module")
def svd():
    """The compiled network `(params, epsilons) -> output`, its parameters, and diffusers' output."""
    public = randomize(
        diffusers.UNetSpatioTemporalConditionModel(
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            block_out_channels=(32, 64),
            num_attention_heads=(2, 4),
            addition_time_embed_dim=6,
            projection_class_embeddings_input_dim=18,
            **BLOCKS,
        ),
        gain=0.3,
    )
    fields = {**FIELDS, "in_channels": 8, "block_out_channels": (32, 64), "norm_num_groups": 32, "num_heads": (2, 4)}
    fields |= {"use_linear_projection": True, "temporal": "spatio_temporal", "added_numbers_dim": 6}
    latents, timesteps = normal(BATCH, FRAMES, HEIGHT, WIDTH, 8), np.float32([1.64, -1.55])
    context, numbers = normal(BATCH, 1, 12, seed=1), np.float32([[6, 127, 0.02], [24, 30, 0.1]])
    arguments = (latents, timesteps, context)
    params = read_params(UNet(**fields), public, *arguments, added_numbers=numbers)

    @jax.jit
    def apply(params, eps):
        return UNet(**fields, **eps).apply({"params": params}, *arguments, added_numbers=numbers)

    with torch.no_grad():
        frames = torch.from_numpy(np.moveaxis(latents, -1, 2).copy())
        expected = public(frames, *map(torch.from_numpy, (timesteps, context, numbers))).sample
    return apply, params, expected.numpy().transpose(0, 1, 3, 4, 2)


def test_spatio_temporal_layers_give_what_diffusers_gives(svd):
    apply, params, expected = svd
    error = relative_error(apply(params, SVD_EPS), expected)
    print(f"spatio_temporal {error:.1e}")
    assert error < LIMIT


@pytest.mark.parametrize(
    "wrong",
    [{"norm_eps": 1e-6}, {"down_norm_eps": (1e-5, 1e-5)}, {"down_norm_eps": (1e-6, 1e-6)}, {"up_norm_eps": 1e-5}],
)
def test_the_limit_notices_each_epsilon(svd, wrong):
    apply, params, expected = svd
    error = relative_error(apply(params, {**SVD_EPS, **wrong}), expected)
    print(f"{wrong} {error:.1e}")
    assert error > LIMIT


@pytest.mark.parametrize("where", ["resnets_0", "attentions_0"])
def test_the_limit_notices_the_direction_of_the_blend(svd, where):
    apply, params, expected = svd

    def turned(path, leaf):
        names = [key.key for key in path]
        return -leaf if names[-1] == "mix_factor" and where in names else leaf

    assert relative_error(apply(jax.tree.map_with_path(turned, params), SVD_EPS), expected) > 100 * LIMIT
