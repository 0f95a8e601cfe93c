import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.models import flow as flow_lib

SMALL = {"flow_widths": (8, 16), "refine_widths": (8, 16), "feature_channels": 3, "groups": 4}
ONE_LEVEL = {**SMALL, "flow_widths": (8,), "refine_widths": (8,)}  # quick to compile
TIMES = (0.2, 0.5)
warp, fuse = jax.jit(flow_lib.warp), jax.jit(flow_lib.fuse)
intermediate_flows = jax.jit(flow_lib.intermediate_flows)


def constant_flow(n, h, w, dx, dy):
    return np.broadcast_to(np.float32([dx, dy]), (n, h, w, 2))


def latents(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def perturbed(model, *args):
    """Parameters without any layer at zero, so that every one of them shows in the output."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *args))
    return jax.tree.map(lambda x: (rng.normal(size=x.shape) * 0.2 + (len(x.shape) == 1)).astype(np.float32), shapes)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (2, 0), (0, -3), (-1, 2), (50, 50)])
def test_warp_by_whole_numbers_is_a_clamped_shift(dx, dy):
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)
    rows, columns = np.clip(np.arange(6) + dy, 0, 5), np.clip(np.arange(5) + dx, 0, 4)
    expected = x[:, rows][:, :, columns]
    np.testing.assert_array_equal(warp(x, constant_flow(2, 6, 5, dx, dy)), expected)


def test_warp_between_positions_is_bilinear():
    y, x = np.meshgrid(np.arange(6, dtype=np.float32), np.arange(7, dtype=np.float32), indexing="ij")
    image = (2 * x + 3 * y + x * y)[None, :, :, None]
    warped = warp(image, constant_flow(1, 6, 7, 0.25, -0.5))[0, 1:, :-1, 0]
    px, py = x[1:, :-1] + 0.25, y[1:, :-1] - 0.5
    np.testing.assert_allclose(warped, 2 * px + 3 * py + px * py, rtol=1e-6)


def test_warp_of_a_single_row_and_column():
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1)
    np.testing.assert_allclose(warp(x, constant_flow(1, 1, 4, 0.5, 3.0))[0, 0, :, 0], [0.5, 1.5, 2.5, 3])
    np.testing.assert_allclose(
        warp(x.reshape(1, 4, 1, 1), constant_flow(1, 4, 1, 3.0, 0.5))[0, :, 0, 0], [0.5, 1.5, 2.5, 3]
    )


def test_warp_has_the_gradient_of_its_closed_form():
    x = np.tile(np.arange(8, dtype=np.float32)[None, None, :, None], (1, 4, 1, 1))  # rises by one a position
    gradient = jax.jit(jax.grad(lambda flow: flow_lib.warp(x, flow).sum()))(constant_flow(1, 4, 8, 0.3, 0.3))
    np.testing.assert_allclose(gradient[0, :, :-1, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(gradient[..., 1], 0, atol=1e-6)


def test_intermediate_flows_of_uniform_motion():
    forward = constant_flow(1, 4, 4, 3.0, -1.0)
    for t in (0.25, 0.5, 0.9):
        to_0, to_1 = intermediate_flows(forward, -forward, t)
        np.testing.assert_allclose(to_0, -t * forward, rtol=1e-5)
        np.testing.assert_allclose(to_1, (1 - t) * forward, rtol=1e-5)


def test_upsampled_flow_moves_the_same_way_on_the_finer_grid():
    fine = jax.jit(flow_lib.upsample_flow, static_argnums=1)(constant_flow(2, 3, 4, 1.5, -2.0), 2)
    np.testing.assert_allclose(fine, constant_flow(2, 6, 8, 3.0, -4.0), rtol=1e-6)


def test_oracle_flow_of_a_translation_gives_the_frames_in_between():
    wide = np.random.default_rng(0).normal(size=(1, 8, 24, 2)).astype(np.float32)
    frame = lambda shift: wide[:, :, 8 - shift : 24 - shift]  # noqa: E731  (moves to the right by shift)
    forward = constant_flow(1, 8, 16, 4.0, 0.0)
    for step in (1, 2, 3):
        t = step / 4
        to_0, to_1 = intermediate_flows(forward, -forward, t)
        warped_0, warped_1 = warp(frame(0), to_0), warp(frame(4), to_1)
        np.testing.assert_allclose(warped_0[:, :, 4:-4], frame(step)[:, :, 4:-4], atol=1e-6)
        np.testing.assert_allclose(warped_1[:, :, 4:-4], frame(step)[:, :, 4:-4], atol=1e-6)
        fused = fuse(warped_0, warped_1, np.full((1, 8, 16, 1), 0.3, np.float32), t)
        np.testing.assert_allclose(fused[:, :, 4:-4], frame(step)[:, :, 4:-4], atol=1e-6)


def test_fusion_follows_the_visibility():
    zeros, ones = np.zeros((1, 2, 2, 1), np.float32), np.ones((1, 2, 2, 1), np.float32)
    np.testing.assert_allclose(fuse(zeros, ones, 0.5 * ones, 0.25), 0.25, rtol=1e-6)
    np.testing.assert_allclose(fuse(zeros, ones, 0.999999 * ones, 0.25), 0, atol=1e-5)
    np.testing.assert_allclose(fuse(zeros, ones, 1e-6 * ones, 0.25), 1, atol=1e-5)


def test_untrained_upsampler_of_two_frames_blends_linearly():
    frames = latents(2, 3, 6, 10, 4)
    model = flow_lib.TemporalUpsampler(**SMALL, context_frames=False, flow_downsample=2)
    video, _ = jax.jit(lambda: model.init_with_output(jax.random.key(1), frames, 4))()
    assert video.shape == (2, 9, 6, 10, 4)
    for i in range(2):
        for k in range(1, 4):
            blend = (1 - k / 4) * frames[:, i] + k / 4 * frames[:, i + 1]
            np.testing.assert_allclose(video[:, 4 * i + k], blend, atol=1e-5)


@pytest.fixture(scope="module")
def untrained():
    """An upsampler of four frames by four, with its initial parameters."""
    model = flow_lib.TemporalUpsampler(**ONE_LEVEL)
    return jax.jit(lambda frames: model.init_with_output(jax.random.key(1), frames, 4)[0])


@pytest.mark.parametrize(("degree", "first", "last"), [(2, 0, 17), (3, 4, 13)])
def test_untrained_upsampler_of_four_frames_continues_a_polynomial(untrained, degree, first, last):
    """A parabola everywhere, a cubic wherever there are two frames on either side."""
    time = np.linspace(-1, 1, 17, dtype=np.float32)[None, :, None, None, None]
    truth = sum(latents(1, 1, 4, 4, 2, seed=i) * time**i for i in range(degree + 1))
    video = untrained(truth[:, ::4])
    np.testing.assert_allclose(video[:, first:last], truth[:, first:last], atol=1e-5)


@pytest.fixture(scope="module")
def trained():
    """An upsampler without a layer at zero, parameters and frames, and what it makes at two times between each two."""
    model = flow_lib.TemporalUpsampler(**ONE_LEVEL)
    frames = latents(2, 3, 8, 8, 4)
    params = perturbed(model, frames)
    return model, params, frames, between(model, params, frames)


def between(model, params, frames):
    return jax.device_get(jax.jit(lambda params: model.apply(params, frames, TIMES, return_aux=True))(params))


def test_trained_upsampler_keeps_the_given_frames_and_changes_the_others(trained):
    _, _, frames, (video, aux) = trained
    assert video.shape == (2, 7, 8, 8, 4)
    np.testing.assert_array_equal(video[:, ::3], frames)
    assert np.abs(video[:, 1] - (0.8 * frames[:, 0] + 0.2 * frames[:, 1])).max() > 1e-2
    assert aux.flow_01.shape == aux.flow_10.shape == (2, 2, 8, 8, 2)
    assert aux.flow_t0.shape == aux.flow_t1.shape == (2, 2, 2, 8, 8, 2)
    assert aux.visibility.shape == (2, 2, 2, 8, 8, 1)
    np.testing.assert_allclose(aux.warped_1[:, 1, 0], warp(frames[:, 2], aux.flow_t1[:, 1, 0]), atol=1e-5)


def test_warping_alone_is_the_neighbours_by_the_same_flow(trained):
    whole, params, frames, (_, of_whole) = trained
    alone = whole.clone(refine=False)
    video, aux = between(alone, params, frames)
    np.testing.assert_allclose(aux.flow_01, of_whole.flow_01, atol=1e-5)
    assert np.abs(aux.flow_01).max() > 0.1
    np.testing.assert_array_equal(video[:, ::3], frames)
    for k, t in enumerate(TIMES, 1):
        flow_t0, flow_t1 = intermediate_flows(aux.flow_01[:, 1], aux.flow_10[:, 1], t)
        near, far = warp(frames[:, 1], flow_t0), warp(frames[:, 2], flow_t1)
        np.testing.assert_allclose(video[:, 3 + k], (1 - t) * near + t * far, atol=1e-4)
    own = jax.eval_shape(lambda: alone.init(jax.random.key(0), frames))["params"]
    assert set(own) == {"flow"}  # in training too there is nothing else to learn


@pytest.mark.parametrize(("context_frames", "depends"), [(True, True), (False, False)])
def test_only_context_frames_look_beyond_the_pair(context_frames, depends):
    frames = latents(1, 4, 8, 8, 2)
    model = flow_lib.TemporalUpsampler(**ONE_LEVEL, context_frames=context_frames)
    params = perturbed(model, frames)
    other = frames + (np.arange(4) == 3).reshape(1, 4, 1, 1, 1).astype(np.float32)
    apply = jax.jit(lambda frames: model.apply(params, frames, 2))
    change = np.abs(np.asarray(apply(frames)) - np.asarray(apply(other))).max((0, 2, 3, 4))
    assert change[1] == 0  # between the frames 0 and 1, whose neighbours are 0 and 2
    assert (change[3] > 1e-4) == depends  # between the frames 1 and 2, whose neighbours are 0 and 3
    assert change[5] > 1e-2


def test_gradients_reach_every_parameter_once_the_heads_are_not_zero():
    frames = latents(1, 3, 8, 8, 2)
    model = flow_lib.TemporalUpsampler(**{**SMALL, "refine_widths": (8,)}, flow_downsample=2)
    params = perturbed(model, frames)
    gradients = jax.jit(jax.grad(lambda p: jnp.square(model.apply(p, frames, 2)).sum()))(params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


def test_errors_name_what_is_wrong():
    model = flow_lib.TemporalUpsampler(**SMALL, flow_downsample=2)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="T of at least 2"):
        model.init(key, jnp.zeros((1, 1, 8, 8, 2)), 2)
    with pytest.raises(ValueError, match="flow_downsample 2"):
        model.init(key, jnp.zeros((1, 2, 7, 8, 2)), 2)
    with pytest.raises(ValueError, match="at least 2, not 1"):
        model.init(key, jnp.zeros((1, 2, 8, 8, 2)), 1)
    with pytest.raises(ValueError, match="rise strictly"):
        model.init(key, jnp.zeros((1, 2, 8, 8, 2)), (0.5, 0.5))
