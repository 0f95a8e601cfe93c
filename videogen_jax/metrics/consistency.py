"""Consistency of a video in time and with its reference image: measures that need no ground truth of the video.

The warping error (Lai et al. 2018, section 4) warps each frame to the next along the optical flow and measures the
difference that remains. The flow must be known: one that the model under test estimates would measure the model by
itself. In a rendered world it follows from what the reader recognises (`Evaluation.flow`).
"""

import numpy as np
from scipy import ndimage

from videogen_jax.data.world import OpticalFlow
from videogen_jax.metrics.image import SSIM_WINDOW, psnr, ssim

MOST_PSNR = 100.0  # dB; in place of infinity, which a mean could not take


def warping_error(frames: np.ndarray, flow: np.ndarray, valid: np.ndarray) -> float | None:
    """Compute the mean squared difference, along the flow, of neighbouring frames.

    For each pair of neighbours: the mean over valid pixels p of |frame_k(p) - frame_{k+1}(p + flow_k(p))|^2, the
    squared norm of the difference of RGB in [0, 1]; then the mean over pairs that have valid pixels.

    Args:
      frames: uint8 `(T, H, W, 3)`, T at least 2.
      flow, valid: see `OpticalFlow`.

    Returns: None where no pixel is valid.

    Raises:
      ValueError: the arrays' shapes do not fit one another.
    """
    frames = np.asarray(frames)
    pairs = (len(frames) - 1, *frames.shape[1:3])
    if frames.ndim != 4 or len(frames) < 2 or flow.shape != (*pairs, 2) or valid.shape != pairs:
        raise ValueError(
            f"warping_error takes frames (T, H, W, 3), flow (T - 1, H, W, 2) and valid (T - 1, H, W); "
            f"got {frames.shape}, {flow.shape}, {valid.shape}"
        )
    rows, columns = np.mgrid[: pairs[1], : pairs[2]]
    errors = []
    for frame, next_frame, displacement, mask in zip(frames[:-1], frames[1:], flow, valid, strict=True):
        if not mask.any():
            continue
        coordinates = rows[mask] + displacement[mask][:, 1], columns[mask] + displacement[mask][:, 0]
        channels = np.moveaxis(next_frame.astype(np.float64), -1, 0)
        warped = np.stack([ndimage.map_coordinates(c, coordinates, order=1, mode="nearest") for c in channels], axis=-1)
        errors.append((((frame[mask] - warped) / 255.0) ** 2).sum(axis=-1).mean())
    return float(np.mean(errors)) if errors else None


def still_flicker(frames: np.ndarray, still: np.ndarray) -> float | None:
    """Compute the mean absolute change, from frame to frame, of what should not change, in [0, 255].

    As VBench's temporal flickering (Huang et al. 2024), which is measured on still scenes.

    Args:
      frames: uint8 `(T, H, W, 3)`.
      still: see `OpticalFlow`.

    Returns: the mean over pairs of frames that have such pixels; None where none has.
    """
    change = np.abs(np.diff(np.asarray(frames, np.float64), axis=0)).mean(axis=-1)
    values = [float(of_pair[mask].mean()) for of_pair, mask in zip(change, still, strict=True) if mask.any()]
    return float(np.mean(values)) if values else None


def reference_fidelity(frames: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Compare the first frame with the reference image.

    Args:
      frames: uint8 `(T, H, W, 3)`.
      reference: uint8 `(H, W, 3)`.

    Returns: `psnr` in dB (at most MOST_PSNR) and `ssim`.
    """
    return {"psnr": min(psnr(frames[0], reference), MOST_PSNR), "ssim": ssim(frames[0], reference)}


def measure_consistency(frames: np.ndarray, reference: np.ndarray, flow: OpticalFlow) -> dict[str, float | None]:
    """Compute all of these for a video whose flow is known.

    Args:
      frames: uint8 `(T, H, W, 3)`.
      reference: uint8 `(H, W, 3)`.

    Returns: `warping_error` and `still_flicker`, None where no pixel is valid; `reference_psnr` and `reference_ssim`,
      None for frames of fewer than 11 pixels a side.
    """
    large = min(frames.shape[1:3]) >= SSIM_WINDOW
    fidelity = reference_fidelity(frames, reference) if large else {"psnr": None, "ssim": None}
    return {
        "warping_error": warping_error(frames, flow.flow, flow.valid),
        "still_flicker": still_flicker(frames, flow.still),
        **{f"reference_{name}": value for name, value in fidelity.items()},
    }
