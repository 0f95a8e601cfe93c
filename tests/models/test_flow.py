import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.models import flow as flow_lib

SMALL = {"flow_widths": (8, 16), "refine_widths": (8, 16), "feature_channels": 3, "groups": 4}


def constant_flow(n, h, w, dx, dy):
    return jnp.broadcast_to(jnp.asarray([dx, dy], jnp.float32), (n, h, w, 2))


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
    np.testing.assert_array_equal(flow_lib.warp(x, constant_flow(2, 6, 5, dx, dy)), expected)


def test_warp_between_positions_is_bilinear():
    y, x = jnp.meshgrid(jnp.arange(6.0), jnp.arange(7.0), indexing="ij")
    image = (2 * x + 3 * y + x * y)[None, :, :, None]
    warped = flow_lib.warp(image, constant_flow(1, 6, 7, 0.25, -0.5))[0, 1:, :-1, 0]
    px, py = x[1:, :-1] + 0.25, y[1:, :-1] - 0.5
    np.testing.assert_allclose(warped, 2 * px + 3 * py + px * py, rtol=1e-6)


def test_warp_of_a_single_row_and_column():
    x = jnp.arange(4.0).reshape(1, 1, 4, 1)
    np.testing.assert_allclose(flow_lib.warp(x, constant_flow(1, 1, 4, 0.5, 3.0))[0, 0, :, 0], [0.5, 1.5, 2.5, 3])
    np.testing.assert_allclose(
        flow_lib.warp(x.reshape(1, 4, 1, 1), constant_flow(1, 4, 1, 3.0, 0.5))[0, :, 0, 0], [0.5, 1.5, 2.5, 3]
    )


def test_warp_has_the_gradient_of_its_closed_form():
    x = jnp.arange(8.0)[None, None, :, None] * jnp.ones((1, 4, 1, 1))  # rises by one a position
    gradient = jax.grad(lambda flow: flow_lib.warp(x, flow).sum())(constant_flow(1, 4, 8, 0.3, 0.3))
    np.testing.assert_allclose(gradient[0, :, :-1, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(gradient[..., 1], 0, atol=1e-6)


def test_intermediate_flows_of_uniform_motion():
    forward = constant_flow(1, 4, 4, 3.0, -1.0)
    for t in (0.25, 0.5, 0.9):
        to_0, to_1 = flow_lib.intermediate_flows(forward, -forward, t)
        np.testing.assert_allclose(to_0, -t * forward, rtol=1e-5)
        np.testing.assert_allclose(to_1, (1 - t) * forward, rtol=1e-5)


def test_upsampled_flow_moves_the_same_way_on_the_finer_grid():
    fine = flow_lib.upsample_flow(constant_flow(2, 3, 4, 1.5, -2.0), 2)
    np.testing.assert_allclose(fine, constant_flow(2, 6, 8, 3.0, -4.0), rtol=1e-6)


def test_oracle_flow_of_a_translation_gives_the_frames_in_between():
    wide = np.random.default_rng(0).normal(size=(1, 8, 24, 2)).astype(np.float32)
    frame = lambda shift: wide[:, :, 8 - shift : 24 - shift]  # noqa: E731  (moves to the right by shift)
    forward = constant_flow(1, 8, 16, 4.0, 0.0)
    for step in (1, 2, 3):
        t = step / 4
        to_0, to_1 = flow_lib.intermediate_flows(forward, -forward, t)
        warped_0, warped_1 = flow_lib.warp(frame(0), to_0), flow_lib.warp(frame(4), to_1)
        np.testing.assert_allclose(warped_0[:, :, 4:-4], frame(step)[:, :, 4:-4], atol=1e-6)
        np.testing.assert_allclose(warped_1[:, :, 4:-4], frame(step)[:, :, 4:-4], atol=1e-6)
        fused = flow_lib.fuse(warped_0, warped_1, jnp.full((1, 8, 16, 1), 0.3), t)
        np.testing.assert_allclose(fused[:, :, 4:-4], frame(step)[:, :, 4:-4], atol=1e-6)


def test_fusion_follows_the_visibility():
    zeros, ones = jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))
    np.testing.assert_allclose(flow_lib.fuse(zeros, ones, 0.5 * ones, 0.25), 0.25, rtol=1e-6)
    np.testing.assert_allclose(flow_lib.fuse(zeros, ones, 0.999999 * ones, 0.25), 0, atol=1e-5)
    np.testing.assert_allclose(flow_lib.fuse(zeros, ones, 1e-6 * ones, 0.25), 1, atol=1e-5)


def test_untrained_upsampler_of_two_frames_blends_linearly():
    frames = latents(2, 3, 6, 10, 4)
    model = flow_lib.TemporalUpsampler(**SMALL, context_frames=False, flow_downsample=2)
    params = jax.jit(lambda: model.init(jax.random.key(1), frames, 4))()
    video = jax.jit(lambda params: model.apply(params, frames, 4))(params)
    assert video.shape == (2, 9, 6, 10, 4)
    for i in range(2):
        for k in range(1, 4):
            blend = (1 - k / 4) * frames[:, i] + k / 4 * frames[:, i + 1]
            np.testing.assert_allclose(video[:, 4 * i + k], blend, atol=1e-5)


@pytest.mark.parametrize(("degree", "first", "last"), [(2, 0, 17), (3, 4, 13)])
def test_untrained_upsampler_of_four_frames_continues_a_polynomial(degree, first, last):
    """A parabola everywhere, a cubic wherever there are two frames on either side."""
    time = jnp.linspace(-1, 1, 17)[None, :, None, None, None]
    truth = sum(latents(1, 1, 4, 4, 2, seed=i) * time**i for i in range(degree + 1))
    model = flow_lib.TemporalUpsampler(**SMALL)
    params = jax.jit(lambda: model.init(jax.random.key(1), truth[:, ::4], 4))()
    video = jax.jit(lambda params: model.apply(params, truth[:, ::4], 4))(params)
    np.testing.assert_allclose(video[:, first:last], truth[:, first:last], atol=1e-5)


def test_trained_upsampler_keeps_the_given_frames_and_changes_the_others():
    frames = latents(2, 3, 8, 8, 4)
    model = flow_lib.TemporalUpsampler(**SMALL)
    apply = jax.jit(lambda params: model.apply(params, frames, (0.2, 0.5), return_aux=True))
    video, aux = apply(perturbed(model, frames))
    assert video.shape == (2, 7, 8, 8, 4)
    np.testing.assert_array_equal(video[:, ::3], frames)
    assert np.abs(video[:, 1] - (0.8 * frames[:, 0] + 0.2 * frames[:, 1])).max() > 1e-2
    assert aux.flow_01.shape == aux.flow_10.shape == (2, 2, 8, 8, 2)
    assert aux.flow_t0.shape == aux.flow_t1.shape == (2, 2, 2, 8, 8, 2)
    assert aux.visibility.shape == (2, 2, 2, 8, 8, 1)
    np.testing.assert_allclose(aux.warped_1[0, 1, 0], flow_lib.warp(frames[:1, 2], aux.flow_t1[:1, 1, 0])[0], atol=1e-5)


def test_warping_alone_is_the_neighbours_by_the_same_flow():
    frames = latents(2, 3, 8, 8, 4)
    whole = flow_lib.TemporalUpsampler(**SMALL)
    params = perturbed(whole, frames)
    alone = whole.clone(refine=False)
    video, aux = jax.jit(lambda params: alone.apply(params, frames, 4, return_aux=True))(params)
    _, of_whole = jax.jit(lambda params: whole.apply(params, frames, 4, return_aux=True))(params)
    np.testing.assert_allclose(aux.flow_01, of_whole.flow_01, atol=1e-5)
    assert np.abs(aux.flow_01).max() > 0.1
    np.testing.assert_array_equal(video[:, ::4], frames)
    for k in (1, 2, 3):
        flow_t0, flow_t1 = flow_lib.intermediate_flows(aux.flow_01[:, 1], aux.flow_10[:, 1], k / 4)
        near, far = flow_lib.warp(frames[:, 1], flow_t0), flow_lib.warp(frames[:, 2], flow_t1)
        np.testing.assert_allclose(video[:, 4 + k], (1 - k / 4) * near + k / 4 * far, atol=1e-4)
    own = jax.eval_shape(lambda: alone.init(jax.random.key(0), frames))["params"]
    assert set(own) == {"flow"}  # in training too there is nothing else to learn


@pytest.mark.parametrize(("context_frames", "depends"), [(True, True), (False, False)])
def test_only_context_frames_look_beyond_the_pair(context_frames, depends):
    frames = latents(1, 4, 8, 8, 2)
    model = flow_lib.TemporalUpsampler(**SMALL, context_frames=context_frames)
    params = perturbed(model, frames)
    other = frames + (np.arange(4) == 3).reshape(1, 4, 1, 1, 1).astype(np.float32)
    apply = jax.jit(lambda frames: model.apply(params, frames, 2))
    change = np.abs(np.asarray(apply(frames)) - np.asarray(apply(other))).max((0, 2, 3, 4))
    assert change[1] == 0  # between the frames 0 and 1, whose neighbours are 0 and 2
    assert (change[3] > 1e-4) == depends  # between the frames 1 and 2, whose neighbours are 0 and 3
    assert change[5] > 1e-2


def test_gradients_reach_every_parameter_once_the_heads_are_not_zero():
    frames = latents(1, 3, 8, 8, 2)
    model = flow_lib.TemporalUpsampler(**SMALL, flow_downsample=2)
    params = perturbed(model, frames)
    gradients = jax.jit(jax.grad(lambda p: jnp.square(model.apply(p, frames, 2)).sum()))(params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(gradient).all(), path
        assert jnp.abs(gradient).max() > 0, path


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
