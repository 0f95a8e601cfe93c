"""Whether a video holds together in time, and to its reference: measures that need no ground truth of the video.

The warping error (Lai et al. 2018, section 4) takes one frame to the next along the optical flow and measures what is
left. The flow has to be known: one that is estimated by the model under test would measure the model by itself. In the
shapes world it follows from where the reader sees the shape (`shapes_flow`): the shape moves as its centre and grows as
its radius, and the background stands still. For other videos `warping_error` takes any flow.
"""

import math

import numpy as np
from scipy import ndimage

from videogen_jax.metrics.image import psnr, ssim
from videogen_jax.shapes import world
from videogen_jax.shapes.reader import Reading

MOST_PSNR = 100.0  # dB; stands for no error at all, which a mean could not take


def warping_error(frames: np.ndarray, flow: np.ndarray, valid: np.ndarray) -> float | None:
    """The mean squared difference, along the flow, of neighbouring frames.

    For each pair of neighbours: the mean over valid pixels p of |frame_k(p) - frame_{k+1}(p + flow_k(p))|^2, the
    squared norm of the difference of RGB in [0, 1]; then the mean over pairs that have valid pixels.

    Args:
      frames: uint8 `(T, H, W, 3)`, T at least 2.
      flow: `(T - 1, H, W, 2)`, (dx, dy) in pixels from each frame to the next.
      valid: bool `(T - 1, H, W)`, where the next frame shows the same thing: neither hidden there nor outside.

    Returns: None where no pixel is valid.

    Raises:
      ValueError: the shapes do not belong together.
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
    for here, after, move, mask in zip(frames[:-1], frames[1:], flow, valid, strict=True):
        if not mask.any():
            continue
        places = rows[mask] + move[mask][:, 1], columns[mask] + move[mask][:, 0]
        channels = np.moveaxis(after.astype(np.float64), -1, 0)
        moved = np.stack([ndimage.map_coordinates(c, places, order=1, mode="nearest") for c in channels], axis=-1)
        errors.append((((here[mask] - moved) / 255.0) ** 2).sum(axis=-1).mean())
    return float(np.mean(errors)) if errors else None


def shapes_flow(reading: Reading, resolution: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The optical flow of a clip of the shapes world, from where its shape was seen.

    Args:
      reading: of the clip's T frames.
      resolution: side R of its frames.

    Returns: flow `(T - 1, R, R, 2)` and valid `(T - 1, R, R)` as `warping_error` takes them, and still `(T - 1, R, R)`,
      the valid pixels of the background. The soft edge of the shape and what it covers or uncovers are not valid; nor
      is anything between frames in one of which no shape was seen.
    """
    count = len(reading.radii) - 1
    flow = np.zeros((count, resolution, resolution, 2))
    valid, still = (np.zeros((count, resolution, resolution), bool) for _ in range(2))
    if reading.shape is None:
        return flow, valid, still
    seen = np.isfinite(reading.radii)
    y, x = np.mgrid[:resolution, :resolution] + 0.5
    coverage = [
        _coverage(reading.shape, centre, radius, resolution) if known else None
        for centre, radius, known in zip(reading.centres, reading.radii, seen, strict=True)
    ]
    for k in np.flatnonzero(seen[:-1] & seen[1:]):
        ratio = reading.radii[k + 1] / reading.radii[k]
        (x0, y0), (x1, y1) = resolution * reading.centres[k], resolution * reading.centres[k + 1]
        # Bilinear reading of the next frame takes in a neighbour: one pixel off the edge on either side.
        inside = ndimage.binary_erosion(coverage[k] >= 1.0, iterations=math.ceil(1 / min(ratio, 1.0)))
        still[k] = ~ndimage.binary_dilation((coverage[k] > 0) | (coverage[k + 1] > 0), iterations=1)
        valid[k] = inside | still[k]
        move = np.stack([x1 + ratio * (x - x0) - x, y1 + ratio * (y - y0) - y], axis=-1)
        flow[k][inside] = move[inside]
    return flow, valid, still


def _coverage(shape: str, centre: np.ndarray, radius: float, resolution: int) -> np.ndarray:
    top, left, block = world.shape_coverage(shape, *centre, radius, resolution)
    whole = np.zeros((resolution, resolution))
    whole[top : top + block.shape[0], left : left + block.shape[1]] = block
    return whole


def still_flicker(frames: np.ndarray, still: np.ndarray) -> float | None:
    """The mean absolute change, from frame to frame, of what should not change: [0, 255].

    As VBench's temporal flickering (Huang et al. 2024), which is measured on still scenes.

    Args:
      frames: uint8 `(T, H, W, 3)`.
      still: bool `(T - 1, H, W)`, pixels that show the same in a frame and the next.

    Returns: the mean over pairs of frames that have such pixels; None where none has.
    """
    change = np.abs(np.diff(np.asarray(frames, np.float64), axis=0)).mean(axis=-1)
    values = [float(of_pair[mask].mean()) for of_pair, mask in zip(change, still, strict=True) if mask.any()]
    return float(np.mean(values)) if values else None


def reference_fidelity(frames: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """How well the first frame keeps the reference image: `psnr` in dB (at most MOST_PSNR) and `ssim`.

    frames: uint8 `(T, H, W, 3)`; reference: uint8 `(H, W, 3)`.
    """
    return {"psnr": min(psnr(frames[0], reference), MOST_PSNR), "ssim": ssim(frames[0], reference)}


def shapes_consistency(frames: np.ndarray, reference: np.ndarray, reading: Reading) -> dict[str, float | None]:
    """All of these for a video of the shapes world; None where no shape was seen.

    Returns: `warping_error`, `still_flicker`, `reference_psnr`, `reference_ssim` (None for frames of fewer than 11
      pixels a side).
    """
    flow, valid, still = shapes_flow(reading, frames.shape[1])
    large = min(frames.shape[1:3]) >= 11
    fidelity = reference_fidelity(frames, reference) if large else {"psnr": None, "ssim": None}
    return {
        "warping_error": warping_error(frames, flow, valid),
        "still_flicker": still_flicker(frames, still),
        **{f"reference_{name}": value for name, value in fidelity.items()},
    }
