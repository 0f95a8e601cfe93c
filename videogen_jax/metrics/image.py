"""Fidelity of images and videos to ground truth: PSNR, SSIM, and the error of the change between frames."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SSIM_WINDOW = 11  # pixels, which an image needs on either side
_SSIM_SIGMA = 1.5


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"the two inputs must have one shape; got {a.shape} and {b.shape}")
    return a, b


def psnr(a: np.ndarray, b: np.ndarray, max_value: float = 255.0) -> float:
    """Compute the peak signal-to-noise ratio in dB, 10 log10(max_value^2 / mean squared error), over all elements.

    Args:
      a, b: arrays of one shape, values in [0, max_value].

    Returns: infinity where they are equal.
    """
    a, b = _pair(a, b)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(max_value**2 / error))


def ssim(a: np.ndarray, b: np.ndarray, max_value: float = 255.0) -> float:
    """Compute the structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861), at most 1.

    Window: Gaussian, 11x11, sigma 1.5; K1 = 0.01, K2 = 0.03; population covariances; the mean over channels, frames and
    those pixels whose window lies inside the image.

    Args:
      a, b: `(..., H, W, C)`, H and W at least 11, values in [0, max_value].
    """
    a, b = _pair(a, b)
    if a.ndim < 3 or min(a.shape[-3:-1]) < SSIM_WINDOW:
        raise ValueError(f"ssim takes (..., H, W, C) with H and W at least {SSIM_WINDOW}; got shape {a.shape}")
    half = SSIM_WINDOW // 2

    def blur(x: np.ndarray) -> np.ndarray:
        for axis in (-3, -2):
            x = ndimage.gaussian_filter1d(x, _SSIM_SIGMA, axis=axis, radius=half)
        return x[..., half:-half, half:-half, :]

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * max_value) ** 2, (0.03 * max_value) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(similarity.mean())


def flicker_error(frames: np.ndarray, truth: np.ndarray) -> float:
    """Compute the mean squared error of the change from frame to frame, in squared units of the input.

    An error that is the same in every frame counts nothing; one that comes and goes between neighbouring frames counts.

    Args:
      frames, truth: `(..., T, H, W, C)`, T at least 2.
    """
    frames, truth = _pair(frames, truth)
    if frames.ndim < 4 or frames.shape[-4] < 2:
        raise ValueError(f"flicker_error takes (..., T, H, W, C) with at least 2 frames; got shape {frames.shape}")
    return float(np.mean(np.diff(frames - truth, axis=-4) ** 2))
