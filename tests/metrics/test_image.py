"""Image metrics against scikit-image and against values worked out by hand."""

import numpy as np
import pytest
from skimage import metrics

from videogen_jax.metrics import image


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (40, 33, 3)).astype(np.uint8)
    return a, np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8)


def test_psnr(pair):
    assert image.psnr(*pair) == pytest.approx(metrics.peak_signal_noise_ratio(*pair), abs=1e-9)
    assert image.psnr(np.zeros(4), np.full(4, 0.1), max_value=1.0) == pytest.approx(20.0)
    assert image.psnr(pair[0], pair[0]) == float("inf")


def test_ssim_agrees_with_scikit_image(pair):
    expected = metrics.structural_similarity(
        *pair, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert image.ssim(*pair) == pytest.approx(expected, abs=1e-9)
    assert image.ssim(pair[0], pair[0]) == pytest.approx(1.0)


def test_ssim_of_a_video_is_the_mean_over_its_frames(pair):
    a, b = pair
    video = image.ssim(np.stack([a, a]), np.stack([b, a]))
    assert video == pytest.approx((image.ssim(a, b) + 1) / 2)


def test_flicker_error_counts_change_only():
    truth = np.random.default_rng(1).uniform(0, 200, (5, 4, 4, 3))
    assert image.flicker_error(truth + 7.0, truth) == pytest.approx(0.0, abs=1e-20)
    flicker = 3.0 * (-1.0) ** np.arange(5)[:, None, None, None]
    assert image.flicker_error(truth + flicker, truth) == pytest.approx(36.0)
    drift = 2.0 * np.arange(5)[:, None, None, None]
    assert image.flicker_error((truth + drift)[None], truth[None]) == pytest.approx(4.0)


def test_flicker_error_of_uint8_does_not_wrap():
    truth = np.zeros((2, 3, 3, 3), np.uint8)
    frames = truth.copy()
    frames[0] = 255
    assert image.flicker_error(frames, truth) == pytest.approx(255.0**2)


def test_shapes_that_do_not_fit_are_refused(pair):
    with pytest.raises(ValueError, match="one shape"):
        image.psnr(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="at least 11"):
        image.ssim(np.zeros((10, 20, 3)), np.zeros((10, 20, 3)))
    with pytest.raises(ValueError, match="at least 2 frames"):
        image.flicker_error(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 3)))
