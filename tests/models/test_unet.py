import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from videogen_jax.models.temporal_kinds import MakeAVideo
from videogen_jax.models.unet import MidBlock, UNet, image_part, inflate_unet
from videogen_jax.weights.naming import from_public

TINY = {
    "in_channels": 3,
    "out_channels": 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "cross_attention": (True, False),
    "num_heads": 2,
    "cross_attention_dim": 6,
    "norm_num_groups": 4,
}
ONE_LEVEL = {  # quick to compile: the middle block has every kind of layer
    **TINY,
    "block_out_channels": (8,),
    "cross_attention": (False,),
    "temporal": "make_a_video",
    "reference_attention": True,
    "added_conditions": ("noise_level", "fps"),
}
HAS_ATTENTION = {True: "CrossAttn", False: ""}


def inputs(batch=2, frames=1, size=8, channels=3, context_dim=6):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(batch, frames, size, size, channels)).astype(np.float32)
    context = rng.normal(size=(batch, 5, context_dim)).astype(np.float32)
    return latents, np.linspace(7, 900, batch).astype(np.float32), context


def random_params(model, *args, seed=0):
    """Parameters without any layer at zero, so that every one of them shows in the output."""
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), *args)["params"])
    rng = np.random.default_rng(seed)
    params = {}
    for path, leaf in shapes.items():
        scale = 0.7 / np.sqrt(np.prod(leaf.shape[:-1])) if path[-1] == "kernel" else 0.2
        params[path] = (rng.normal(size=leaf.shape) * scale + (path[-1] == "scale")).astype(np.float32)
    return unflatten_dict(params)


ADDED = ("temporal_", "reference_", "noise_level_embedding", "added_numbers_embedding")
KINDS = {  # the layers that each kind of temporal layers adds
    "make_a_video": (),
    "spatio_temporal": ("time_mixer", "time_pos_embed"),
    "temporal_transformer": ("temp_convs_", "temp_attentions_", "transformer_in"),
    "motion_module": ("motion_modules_",),
}


def is_added(path):
    return any(name.startswith((*ADDED, *(name for names in KINDS.values() for name in names))) for name in path)


def fresh_added(model, *args):
    """Initial parameters of the layers that a video network adds; NaN for the others, which inflating must replace.

    XLA leaves out the draws that are not returned, and with them most of the time that initialisation compiles.
    """

    def init(rng):
        params = flatten_dict(model.init(rng, *args)["params"])
        return {path: leaf for path, leaf in params.items() if is_added(path)}

    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), *args)["params"])
    blank = {path: np.full(leaf.shape, np.nan, leaf.dtype) for path, leaf in shapes.items()}
    return unflatten_dict({**blank, **jax.jit(init)(jax.random.key(1, impl="unsafe_rbg"))})


PUBLIC = [
    # as Stable Diffusion 1: convolutions around the transformers, one number of heads, the lowest level without
    {"layers_per_block": 2, "cross_attention": (True, False)},
    # as 2 and XL: linear layers, heads of one size, deep transformers below, none above
    {
        "use_linear_projection": True,
        "num_heads": (2, 4),
        "cross_attention": (False, True),
        "transformer_layers_per_block": (1, 2),
    },
]


def public_unet(**fields):
    """The fields of our UNet with these, and diffusers' UNet of the same fields."""
    diffusers = pytest.importorskip("diffusers")
    fields = {**TINY, "block_out_channels": (16, 32), "norm_num_groups": 8, **fields}
    attention = fields["cross_attention"]
    return fields, diffusers.UNet2DConditionModel(
        down_block_types=tuple(f"{HAS_ATTENTION[a]}DownBlock2D" for a in attention),
        up_block_types=tuple(f"{HAS_ATTENTION[a]}UpBlock2D" for a in reversed(attention)),
        attention_head_dim=fields["num_heads"],  # which diffusers reads as the number of heads
        **{name: value for name, value in fields.items() if name not in ("cross_attention", "num_heads")},
    )


@pytest.mark.parametrize("fields", PUBLIC)
def test_parity_with_diffusers(fields):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    fields, theirs = public_unet(**fields)
    theirs.eval()
    latents, timesteps, context = inputs()
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(latents[:, 0]).permute(0, 3, 1, 2),
            torch.from_numpy(timesteps),
            encoder_hidden_states=torch.from_numpy(context),
        ).sample.permute(0, 2, 3, 1)

    ours = UNet(**fields)
    template = jax.eval_shape(ours.init, jax.random.key(0), latents, timesteps, context)["params"]
    params = from_public({name: x.numpy() for name, x in theirs.state_dict().items()}, template)
    actual = jax.jit(ours.apply)({"params": params}, latents, timesteps, context)[:, 0]
    error = np.abs(actual - expected.numpy()).max() / np.abs(expected.numpy()).max()
    assert error < 1e-4


def test_a_third_level_has_the_layers_of_diffusers():
    fields, theirs = public_unet(
        block_out_channels=(16, 24, 32),
        cross_attention=(False, True, False),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2, 1),
    )
    output, variables = jax.eval_shape(UNet(**fields).init_with_output, jax.random.key(0), *inputs())
    assert output.shape == (2, 1, 8, 8, 2)
    from_public({name: x.numpy() for name, x in theirs.state_dict().items()}, variables["params"])


@pytest.fixture(scope="module")
def one_level():
    """A video network with every kind of layer: the function, compiled once for each shape, parameters and inputs."""
    model = UNet(**ONE_LEVEL)
    latents, timesteps, context = inputs(frames=4)
    scalars = {"noise_level": np.float32([10, 20]), "fps": np.float32([8, 8])}
    params = random_params(model, latents, timesteps, context, scalars)
    return jax.jit(model.apply), {"params": params}, latents, timesteps, context, scalars


@pytest.mark.parametrize("kind", KINDS)
def test_inflating_replaces_every_layer_of_the_image_network_and_no_other(kind):
    fields = {**TINY, "cross_attention": (False, True)}
    added = {"temporal": kind, "reference_attention": (False, True), "added_conditions": ("noise_level",)}
    latents, timesteps, context = inputs(frames=3, channels=7)

    def shapes(model, *args):
        return jax.eval_shape(model.init, jax.random.key(0), *args)["params"]

    spatial = shapes(UNet(**fields), latents[..., :3], timesteps, context)
    video = shapes(
        UNet(**{**fields, "in_channels": 7}, **added), latents, timesteps, context, {"noise_level": timesteps}
    )
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), image_part(video, 3), spatial)
    assert "reference_attentions_0" in video["down_blocks_1"]
    assert "reference_attentions_0" not in video["down_blocks_0"]

    def full(tree, value):
        return jax.tree.map(lambda leaf: np.full(leaf.shape, value, leaf.dtype), tree)

    params = inflate_unet(full(spatial, 1.0), full(video, np.nan))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, video)
    remat = UNet(**{**fields, "in_channels": 7}, **added, remat=True)
    assert shapes(remat, latents, timesteps, context, {"noise_level": timesteps}) == video
    names = {name for path in flatten_dict(params) for name in path}
    for start in KINDS[kind]:
        assert any(name.startswith(start) for name in names)
    for path, leaf in flatten_dict(params).items():
        assert np.isnan(leaf).all() if is_added(path) else np.isfinite(leaf).all(), path


@pytest.mark.parametrize("kind", KINDS)
def test_an_inflated_video_network_gives_on_every_frame_what_the_image_network_gives(kind):
    added = {
        "temporal": kind,
        "added_numbers_dim": 2,
        "reference_attention": True,
        "added_conditions": ("noise_level",),
    }
    fields = {**TINY, "block_out_channels": (8,), "cross_attention": (False,)}
    image, video = UNet(**fields), UNet(**{**fields, "in_channels": 7}, **added)
    latents, timesteps, context = inputs(frames=3)
    joined = np.concatenate([latents, inputs(frames=3, channels=4)[0]], axis=-1)
    args = (joined, timesteps, context, {"noise_level": np.array([30.0, 500.0], np.float32)})
    args += (None, None, None, np.float32([[6, 127, 0.02], [24, 30, 0.1]]))
    spatial = random_params(image, latents, timesteps, context)
    fresh = fresh_added(video, *args)
    actual = jax.jit(video.apply)({"params": inflate_unet(spatial, fresh)}, *args)

    apply_image = jax.jit(image.apply)
    for i in range(3):
        expected = apply_image({"params": spatial}, latents[:, i : i + 1], timesteps, context)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(actual[:, i : i + 1], expected, atol=1e-6)

    kernel = inflate_unet(spatial, fresh, 0.5)["conv_in"]["kernel"]
    np.testing.assert_array_equal(kernel[:, :, 3:6], 0.5 * kernel[:, :, :3])  # the first that are concatenated
    assert np.all(kernel[:, :, 6:] == 0)


def test_trained_temporal_layers_let_frames_see_each_other_and_their_positions(one_level):
    apply, params, latents, timesteps, context, scalars = one_level
    positions = np.broadcast_to(np.arange(4.0, dtype=np.float32), (2, 4))

    def run(latents=latents, scalars=scalars, positions=positions):
        return apply(params, latents, timesteps, context, scalars, positions)

    def change(**changed):
        return np.abs(run(**changed) - output).max((2, 3, 4))

    output = run()
    assert output.shape == (2, 4, 8, 8, 2)
    last = latents.copy()
    last[0, 3] += 1
    changes = change(latents=last)
    assert changes[0].min() > 1e-5  # all frames of the video: reference attention carries the first alone
    assert changes[1].max() == 0  # and no other video
    assert change(positions=2 * positions).min() > 1e-5
    for name in scalars:
        moved = change(scalars={**scalars, name: scalars[name] + np.float32([0, 100])})
        assert moved[0].max() == 0
        assert moved[1].min() > 1e-5


def test_reference_attention_carries_the_first_frame_to_every_place_of_the_others():
    """Without temporal layers it is the only way from frame to frame."""
    model = UNet(**{**ONE_LEVEL, "temporal": None, "added_conditions": ()})
    args = inputs(frames=3)
    params = random_params(model, *args)
    apply = jax.jit(model.apply)

    def change(frame):
        latents = args[0].copy()
        latents[0, frame, 0, 0] += 1
        return np.abs(apply({"params": params}, latents, *args[1:]) - apply({"params": params}, *args)).max(-1)

    assert change(0)[0].min() > 0  # one corner reaches every place of every frame
    later = change(2)
    assert later[0, 2].max() > 1e-4
    assert later[:, :2].max() == later[1].max() == 0


def test_one_frame_through_temporal_layers_and_its_position(one_level):
    apply, params, latents, *args = one_level
    frame = latents[:, :1]
    output = apply(params, frame, *args)
    assert output.shape == (2, 1, 8, 8, 2)
    first, later = (apply(params, frame, *args, np.full((2, 1), at, np.float32)) for at in (0.0, 5.0))
    np.testing.assert_allclose(output, first, atol=1e-5)
    # Alone, a frame can only attend to itself: its place still shows in its value.
    assert np.abs(later - output).max() > 1e-5


def test_remat_changes_neither_parameters_nor_gradients(one_level):
    # Of the block that has every kind of layer.
    fields = {"features": 8, "layers": 2, "heads": 2, "reference_heads": 2, "depth": 1, "resample": False}
    fields |= {"groups": 4, "eps": 1e-5, "use_linear_projection": False, "temporal": MakeAVideo(), "dtype": jnp.float32}
    plain, remat = (MidBlock(**fields, remat=remat) for remat in (False, True))
    x, _, context = inputs(batch=1, frames=2, channels=8)
    args = (x[0], np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32), context, np.float32([[0, 1]]))

    def gradients(model, params):
        return jax.jit(jax.grad(lambda p: jnp.square(model.apply({"params": p}, *args)).mean()))(params)

    params = random_params(plain, *args)
    expected = gradients(plain, params)
    scale = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), gradients(remat, params), expected)

    # All layers of all blocks of a network are recomputed.
    _, whole, *args = one_level
    initialise = UNet(**ONE_LEVEL, remat=True).init
    jaxpr, shapes = jax.make_jaxpr(initialise, return_shape=True)(jax.random.key(0), *args)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, whole)
    layers = [
        name for block in whole["params"].values() for name in block if re.search(r"(resnets|attentions)_\d", name)
    ]
    recomputed = [equation for equation in jaxpr.eqns if re.match("remat|checkpoint", equation.primitive.name)]
    assert len(recomputed) == len(layers) == 11


def test_configs_from_before_there_were_kinds_of_temporal_layers():
    assert UNet(temporal=True) == UNet(temporal="make_a_video")
    assert UNet(temporal=False) == UNet(temporal=None)


@pytest.mark.parametrize(
    ("fields", "shape", "conditions", "message"),
    [
        ({}, (2, 1, 7, 8, 3), None, "7x8 .* divisible by 2"),
        ({}, (2, 1, 8, 8, 4), None, r"latents must have shape \(B, T, H, W, 3\)"),
        ({}, (1, 1, 8, 8, 3), None, r"context must have shape \(1, L, 6\)"),
        ({"cross_attention": (True,)}, (2, 1, 8, 8, 3), None, "cross_attention has 1 values"),
        ({"num_heads": (1, 2, 3)}, (2, 1, 8, 8, 3), None, "num_heads has 3 values"),
        ({"reference_attention": (True,)}, (2, 1, 8, 8, 3), None, "reference_attention has 1 values"),
        ({"num_heads": 3}, (2, 1, 8, 8, 3), None, "num_heads 3 must divide the 8"),
        ({"norm_num_groups": 3}, (2, 1, 8, 8, 3), None, "norm_num_groups 3 must divide the 8"),
        ({"added_conditions": ("fps",)}, (2, 1, 8, 8, 3), None, "scalar_conditions must be fps, not none"),
        ({}, (2, 1, 8, 8, 3), {"fps": np.zeros(2)}, "scalar_conditions must be none, not fps"),
        ({"added_numbers_dim": 4}, (2, 1, 8, 8, 3), None, r"added_numbers must have shape \(2, 3\), not \(\)"),
        ({"down_norm_eps": (1e-5,)}, (2, 1, 8, 8, 3), None, "down_norm_eps has 1 values"),
    ],
)
def test_errors_name_what_does_not_fit(fields, shape, conditions, message):
    _, timesteps, context = inputs()
    model = UNet(**{**TINY, **fields})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape), timesteps, context, conditions)
