import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.shapes.clips import clip_from_caption
from videogen_jax.interpolation.interpolator import Motion, factor_passes, interpolate_frames, interpolate_residual
from videogen_jax.metrics.image import flicker_error, psnr
from videogen_jax.runtime.arrays import to_uint8, to_unit
from videogen_jax.shapes.world import frame_times, render
from videogen_jax.stages.temporal import blend


def noise(count: int, height: int = 16, width: int = 16, seed: int = 0) -> np.ndarray:
    """Return frames without scene changes, uint8 (T, H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """29 frames, of which every fourth is a source."""
    shown = clip_from_caption("a large yellow circle moving left quickly on a gray background", seed=1)
    return render(shown, frame_times(61), 64)[:29]


@pytest.fixture(scope="module")
def found(trained_interpolator, clip) -> np.ndarray:
    """The clip as its sources give it: as many as a window has."""
    return interpolate_frames(trained_interpolator, clip[::4], 4)


def test_new_frames_are_nearer_to_the_truth_than_blends_and_repeats(trained_interpolator, clip, found):
    sources, new = clip[::4], [k for k in range(29) if k % 4]
    decoded = interpolate_frames(trained_interpolator, sources, 4, keep_frames=False)
    blended = np.asarray(to_uint8(blend(to_unit(jnp.asarray(sources))[None], 4)))[0]
    repeated = sources[np.round(np.arange(29) / 4).astype(int)]
    np.testing.assert_array_equal(found[::4], sources)
    residual = to_unit(jnp.asarray(sources)) - to_unit(jnp.asarray(decoded[::4]))
    unwarped = np.asarray(to_uint8(to_unit(jnp.asarray(decoded)) + blend(residual[None], 4)[0]))
    for other, margin in ((blended, 1.5), (repeated, 4.5), (decoded, 4.0), (unwarped, 0.25)):
        assert psnr(found[new], clip[new]) > psnr(other[new], clip[new]) + margin
        assert flicker_error(found, clip) < flicker_error(other, clip)


def test_results_do_not_depend_on_the_window(trained_interpolator, clip, found):
    whole = interpolate_frames(dataclasses.replace(trained_interpolator, window=29), clip[::4], 4)
    difference = np.abs(found.astype(int) - whole)
    assert difference.max() <= 4  # of 255; the video decoder's norms run over all frames of a window
    assert difference.mean() < 0.1


@pytest.fixture(scope="module")
def by_image(tiny_interpolator):
    """An interpolator without a video decoder, of high contrast: frames depend on the next two neighbours only."""
    vae = tiny_interpolator.params["vae"]
    last = {name: 10 * leaf for name, leaf in vae["decoder"]["conv_out"].items()}
    vae = {**vae, "decoder": {**vae["decoder"], "conv_out": last}}
    return dataclasses.replace(tiny_interpolator, decoder=None, params={**tiny_interpolator.params, "vae": vae})


@pytest.fixture(scope="module")
def without_windows(by_image):
    """A function that encodes frames one by one, upsamples all at once, and decodes them one by one."""
    vae, upsampler = by_image.params["vae"], by_image.params["temporal_upsampler"]
    encode = jax.jit(lambda frame: by_image.autoencoder.encode(vae, to_unit(frame)))
    upsample = jax.jit(lambda latents, factor: by_image.temporal.upsample(upsampler, latents, factor), static_argnums=1)
    decode = jax.jit(lambda latents: to_uint8(by_image.autoencoder.decode(vae, latents)))

    def run(frames: np.ndarray, *factors: int) -> np.ndarray:
        latents = np.concatenate([encode(frame[None]) for frame in frames])[None]
        for factor in factors:
            latents = np.asarray(upsample(latents, factor))
        return np.concatenate([decode(one[None]) for one in latents[0]]).astype(int)

    return run


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 11])
def test_windows_match_the_whole_video(by_image, without_windows, count):
    frames = noise(count)
    found = interpolate_frames(by_image, frames, 4, keep_frames=False)
    assert np.abs(found - without_windows(frames, 4)).max() <= 1  # rounding


def test_a_factor_of_eight_is_four_then_two(by_image, without_windows):
    frames = noise(11)
    found = interpolate_frames(by_image, frames, 8, keep_frames=False)
    assert found.shape == (81, 16, 16, 3)
    assert np.abs(found - without_windows(frames, 4, 2)).max() <= 1
    with_sources = interpolate_frames(by_image, frames, 8)
    np.testing.assert_array_equal(with_sources[::8], frames)


def test_each_program_is_compiled_once(tiny_interpolator, compilations):
    interpolate_frames(tiny_interpolator, noise(9), 4)
    first = len(compilations)
    interpolate_frames(tiny_interpolator, noise(23, seed=1), 4)
    assert len(compilations) == first


def test_odd_sizes_are_padded_and_cropped_back(tiny_interpolator):
    frames = noise(5, 13, 19)
    found = interpolate_frames(tiny_interpolator, frames, 2)
    assert found.shape == (9, 13, 19, 3)
    np.testing.assert_array_equal(found[::2], frames)
    wider = np.pad(frames, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    decoded = interpolate_frames(tiny_interpolator, frames, 2, keep_frames=False)
    np.testing.assert_array_equal(decoded, interpolate_frames(tiny_interpolator, wider, 2, False)[:, :13, :19])


def test_at_a_cut_the_last_frame_is_repeated(tiny_interpolator):
    dark, light = (
        np.clip(noise(7, seed=seed) // 8 + level, 0, 255).astype(np.uint8) for seed, level in ((0, 0), (1, 200))
    )
    found = interpolate_frames(tiny_interpolator, np.concatenate([dark, light]), 4)
    np.testing.assert_array_equal(found[:25], interpolate_frames(tiny_interpolator, dark, 4))
    np.testing.assert_array_equal(found[25:28], dark[[-1] * 3])
    np.testing.assert_array_equal(found[28:], interpolate_frames(tiny_interpolator, light, 4))


@pytest.mark.parametrize("keep_frames", [True, False])
def test_scenes_of_one_frame(tiny_interpolator, keep_frames):
    lit = noise(6) // 8
    lit[5] += np.uint8(200)
    found = list(tiny_interpolator.interpolate(lit, 4, keep_frames))
    assert [len(part) for part in found] == [4] * 6
    np.testing.assert_array_equal(found[4], found[4][[0] * 4])  # repeated up to the cut
    if keep_frames:
        np.testing.assert_array_equal(found[5], lit[[5] * 4])


def test_memory_does_not_grow_with_the_length(by_image):
    def peak(count: int) -> int:
        generator = np.random.default_rng(0)
        frames = (generator.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(count))
        tracemalloc.start()
        for part in by_image.interpolate(frames, 4):
            assert part.shape == (4, 16, 16, 3)
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    interpolate_frames(by_image, noise(12), 4)  # compiles
    more = 120 * 16 * 16 * 3  # bytes of the source frames, a quarter of those of the output
    short = peak(30)
    assert peak(150) - short < more / 2


def test_residuals_are_warped_along_the_flow():
    residual = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    zero = np.zeros((2, 3, 4, 4, 2), np.float32)
    still = Motion(zero, zero, np.full((2, 3, 4, 4, 1), 0.5, np.float32))
    interpolate = jax.jit(interpolate_residual)
    np.testing.assert_allclose(
        interpolate(residual, still), jax.jit(blend, static_argnums=1)(residual[None], 4)[0], atol=1e-6
    )
    # Motion by one latent, 4 pixels, to the right: half of it from each end in the middle frame.
    right = np.zeros((1, 1, 4, 4, 2), np.float32)
    right[..., 0] = 0.5
    first = residual[0]
    moved = np.stack([first, np.roll(first, 4, axis=1)])
    middle = interpolate(moved, Motion(-right, right, np.full((1, 1, 4, 4, 1), 0.5, np.float32)))[1]
    np.testing.assert_allclose(middle[:, 2:-2], np.roll(first, 2, axis=1)[:, 2:-2], atol=1e-6)


@pytest.mark.parametrize(("factor", "passes"), [(2, (2,)), (4, (4,)), (8, (4, 2)), (16, (4, 4)), (32, (4, 4, 2))])
def test_factors_are_products_of_the_models(factor, passes):
    assert factor_passes(factor, (1, 2, 4)) == passes


@pytest.mark.parametrize("factor", [0, 1, -2, 3, 6, 2.0, True])
def test_other_factors_are_refused(factor):
    with pytest.raises(ValueError, match=f"factor is {factor}, but must be one of the model's, 2, 4, or a product"):
        factor_passes(factor, (1, 2, 4))


def test_wrong_frames_are_refused(tiny_interpolator):
    with pytest.raises(ValueError, match="with T of at least 2"):
        interpolate_frames(tiny_interpolator, noise(1), 2)
    with pytest.raises(ValueError, match=r"a frame is \(16, 16, 3\) float32, but must be"):
        interpolate_frames(tiny_interpolator, noise(3).astype(np.float32), 2)
    with pytest.raises(
        ValueError, match=r"a frame is \(18, 16, 3\) uint8, but must be \(H, W, 3\) uint8 like the first"
    ):
        list(tiny_interpolator.interpolate([*noise(3), *noise(3, 18)], 2))
    with pytest.raises(ValueError, match="window is 3, but must be at least 4"):
        dataclasses.replace(tiny_interpolator, window=3)


def test_the_default_type_is_the_devices(tiny_interpolator):
    assert jax.default_backend() != "cpu" or tiny_interpolator.temporal.network.dtype == jnp.float32
