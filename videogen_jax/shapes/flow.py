"""The optical flow of a clip of the shapes world, from where the reader found its shape.

The shape moves as its centre and grows as its radius; the background stands still.
"""

import math

import numpy as np
from scipy import ndimage

from videogen_jax.data.world import OpticalFlow
from videogen_jax.shapes import world
from videogen_jax.shapes.reader import Reading


def optical_flow(reading: Reading, resolution: int) -> OpticalFlow:
    """Compute the optical flow of a clip from the positions and radii of its shape.

    Args:
      reading: of the clip's T frames.
      resolution: side R of its frames.

    Returns: the flow from each frame to the next, on frames of R x R pixels. The soft edge of the shape and what it
      covers or uncovers are not valid; nor is anything between two frames if no shape was found in one of them.
    """
    count = len(reading.radii) - 1
    flow = np.zeros((count, resolution, resolution, 2))
    valid, still = (np.zeros((count, resolution, resolution), bool) for _ in range(2))
    if reading.shape is None:
        return OpticalFlow(flow, valid, still)
    found = np.isfinite(reading.radii)
    y, x = np.mgrid[:resolution, :resolution] + 0.5
    coverage = [
        _coverage(reading.shape, centre, radius, resolution) if is_found else None
        for centre, radius, is_found in zip(reading.centres, reading.radii, found, strict=True)
    ]
    for k in np.flatnonzero(found[:-1] & found[1:]):
        ratio = reading.radii[k + 1] / reading.radii[k]
        (x0, y0), (x1, y1) = resolution * reading.centres[k], resolution * reading.centres[k + 1]
        # Bilinear sampling of the next frame takes in a neighbour: one pixel off the edge on either side.
        inside = ndimage.binary_erosion(coverage[k] >= 1.0, iterations=math.ceil(1 / min(ratio, 1.0)))
        still[k] = ~ndimage.binary_dilation((coverage[k] > 0) | (coverage[k + 1] > 0), iterations=1)
        valid[k] = inside | still[k]
        displacement = np.stack([x1 + ratio * (x - x0) - x, y1 + ratio * (y - y0) - y], axis=-1)
        flow[k][inside] = displacement[inside]
    return OpticalFlow(flow, valid, still)


def _coverage(shape: str, centre: np.ndarray, radius: float, resolution: int) -> np.ndarray:
    """Return the share of each pixel of the frame that the shape covers, `(R, R)`."""
    top, left, block = world.shape_coverage(shape, *centre, radius, resolution)
    coverage = np.zeros((resolution, resolution))
    coverage[top : top + block.shape[0], left : left + block.shape[1]] = block
    return coverage
