"""Each kind of temporal layers against diffusers' network of that kind, with random weights, none of them at zero."""

import diffusers
import jax
import numpy as np
import pytest
import torch

from videogen_jax.models.i2vgen import I2VGenXLUNet, adaptive_average, image_latents_of
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


def inputs(channels, tokens, timesteps=(7, 900)):
    latents = normal(BATCH, FRAMES, HEIGHT, WIDTH, channels)
    return latents, np.float32(timesteps), normal(BATCH, tokens, 12, seed=1)


def read_params(model, module, *args, max_frames=None, **kwargs):
    template = jax.eval_shape(model.init, jax.random.key(0), *args, **kwargs)["params"]
    return from_public(state(module), template, max_frames)


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
    arguments = latents, timesteps, context = inputs(channels=8, tokens=1, timesteps=(1.64, -1.55))
    numbers = np.float32([[6, 127, 0.02], [24, 30, 0.1]])
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


# AnimateDiff


def public_motion_unet(mid_block, levels, channels=4):
    """diffusers' network, and the fields of ours."""
    public = diffusers.UNetMotionModel(
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion")[:levels],
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion")[-levels:],
        in_channels=channels,
        block_out_channels=(16, 32)[:levels],
        norm_num_groups=8,
        num_attention_heads=2,
        motion_max_seq_length=6,
        use_motion_mid_block=mid_block,
        **BLOCKS,
    )
    fields = {**FIELDS, "in_channels": channels, "num_heads": 2, "temporal": "motion_module", "motion_max_frames": 6}
    fields |= {"block_out_channels": (16, 32)[:levels], "cross_attention": (True, False)[:levels]}
    return randomize(public), fields | {"motion_mid_block": mid_block}


def norm_of_frames(module):
    """Make the group norm of a motion module take the statistics of each frame, as AnimateDiff's authors do."""

    def forward(video):  # (B, C, T, H, W)
        frames = video.transpose(1, 2)
        normed = torch.nn.functional.group_norm(
            frames.flatten(0, 1), module.num_groups, module.weight, module.bias, module.eps
        )
        return normed.unflatten(0, frames.shape[:2]).transpose(1, 2)

    module.forward = forward


@pytest.mark.parametrize(
    ("norm", "mid_block", "levels", "channels"),
    [("video", True, 2, 4), ("video", False, 1, 9), ("frame", True, 1, 4)],  # the second as PIA's
)
def test_motion_modules_give_what_diffusers_gives(norm, mid_block, levels, channels):
    public, fields = public_motion_unet(mid_block, levels, channels)
    latents, timesteps, context = inputs(channels, tokens=3)
    latents *= np.float32([0.5, 1, 2, 4, 8]).reshape(-1, 1, 1, 1)  # frames of other statistics than their video's
    arguments = (latents, timesteps, context)

    def theirs():
        with torch.no_grad():
            text = torch.from_numpy(context).repeat_interleave(FRAMES, 0)
            output = public(channels_second(latents), torch.from_numpy(timesteps), text).sample
        return np.moveaxis(output.numpy(), 1, -1)

    expected = theirs()
    if norm == "frame":
        for name, module in public.named_modules():
            if "motion_modules" in name and name.endswith(".norm"):
                norm_of_frames(module)
        of_videos, expected = expected, theirs()
        assert relative_error(of_videos, expected) > 100 * LIMIT
    model = UNet(**fields, motion_norm=norm)
    params = read_params(model, public, *arguments, max_frames=6)
    error = relative_error(jax.jit(model.apply)({"params": params}, *arguments), expected)
    print(f"motion_module {norm} {mid_block} {levels} {error:.1e}")
    assert error < LIMIT


def test_tables_of_other_positions_are_refused():
    public, fields = public_motion_unet(False, levels=2)
    template = jax.eval_shape(UNet(**fields).init, jax.random.key(0), *inputs(channels=4, tokens=3))["params"]
    tensors = state(public)
    name = "down_blocks.1.motion_modules.0.transformer_blocks.0.pos_embed.pe"
    with pytest.raises(ValueError, match=r"6 with other positions .*pe \(1, 6, 32\)"):
        from_public(tensors, template, max_frames=24)
    for table in (np.roll(tensors[name], 1, 1), np.roll(tensors[name], 1, 2), tensors[name][0]):
        with pytest.raises(ValueError, match=rf"1 with other positions than the network's \({name}"):
            from_public({**tensors, name: table}, template)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"motion_max_frames": 4}, "5 frames is longer than motion_max_frames, 4"),
        ({"motion_norm": "clip"}, "motion_norm is 'clip'; it may be frame or video"),
        ({"block_out_channels": (12, 32), "norm_num_groups": 4}, "8 heads, which must divide the 12"),
        ({"temporal": "motion"}, "temporal is 'motion'; it may be None, make_a_video, spatio_temporal"),
    ],
)
def test_errors_name_what_does_not_fit(fields, message):
    fields = {**FIELDS, "num_heads": 2, "temporal": "motion_module", **fields}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda *args: UNet(**fields).init(jax.random.key(0), *args), *inputs(channels=4, tokens=3))


# ModelScope and I2VGen-XL


def blocks_3d(levels):
    """Arguments of diffusers' networks of so many levels."""
    return {
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D")[:levels],
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D")[-levels:],
        "block_out_channels": (16, 32)[:levels],
        "norm_num_groups": 8,
        "attention_head_dim": 4,  # here it is what it says, and the number of heads follows
        **BLOCKS,
    }


def test_temporal_transformers_give_what_diffusers_gives():
    public = randomize(diffusers.UNet3DConditionModel(**blocks_3d(levels=1)))
    arguments = latents, timesteps, context = inputs(channels=4, tokens=3)
    with torch.no_grad():
        output = public(channels_second(latents), *map(torch.from_numpy, (timesteps, context))).sample
    fields = {**FIELDS, "block_out_channels": (16,), "cross_attention": (True,), "num_heads": 4}
    model = UNet(**fields, use_linear_projection=True, temporal="temporal_transformer")
    params = read_params(model, public, *arguments)
    error = relative_error(jax.jit(model.apply)({"params": params}, *arguments), np.moveaxis(output.numpy(), 1, -1))
    print(f"temporal_transformer {error:.1e}")
    assert error < LIMIT


def test_i2vgen_xl_gives_what_diffusers_gives():
    public = randomize(diffusers.I2VGenXLUNet(**blocks_3d(levels=2)))
    latents, timesteps, context = inputs(channels=4, tokens=3)
    image, embedding = np.asarray(image_latents_of(normal(BATCH, HEIGHT, WIDTH, 4, seed=2), FRAMES)), normal(BATCH, 12)
    fps = np.float32([16, 8])
    with torch.no_grad():
        output = public(
            channels_second(latents),
            torch.from_numpy(timesteps),
            torch.from_numpy(fps),
            channels_second(image),
            torch.from_numpy(embedding),
            torch.from_numpy(context),
        ).sample
    arguments = (latents, timesteps, context, image, embedding, fps)
    model = I2VGenXLUNet(**FIELDS, num_heads=(4, 8))
    params = read_params(model, public, *arguments)
    error = relative_error(jax.jit(model.apply)({"params": params}, *arguments), np.moveaxis(output.numpy(), 1, -1))
    print(f"i2vgen {error:.1e}")
    assert error < LIMIT


def test_image_latents_are_the_image_and_then_the_places_of_frames():
    image = normal(1, 2, 3, 4)
    latents = np.asarray(image_latents_of(image, 5))
    np.testing.assert_array_equal(latents[:, 0], image)
    assert latents.shape == (1, 5, 2, 3, 4)
    np.testing.assert_allclose(latents[0, 1:, 1, 2, 3], [0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(image_latents_of(image, 1)[:, 0], image)


@pytest.mark.parametrize("size", [(8, 16), (72, 128), (32, 45)])
def test_adaptive_average_is_pytorchs(size):
    rows, columns = (adaptive_average(side, 32) for side in size)
    image = normal(*size)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(image)[None, None], (32, 32))[0, 0]
    np.testing.assert_allclose(rows @ image @ columns.T, expected.numpy(), atol=1e-6)
