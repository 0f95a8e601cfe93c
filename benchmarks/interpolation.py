"""Frames made between the given ones, against the rendered truth, by the ways to make them.

    python benchmarks/interpolation.py --factor 4 --clips 32

Held-out clips of the shapes world, rendered at the new rate; every factor-th frame is given. PSNR is that of the frames
in between; flicker is the mean squared error of the change from frame to frame, over all frames.
"""

import argparse

import jax.numpy as jnp
import numpy as np

from videogen_jax.interpolation.interpolator import Interpolator, interpolate_frames
from videogen_jax.metrics.image import flicker_error, psnr
from videogen_jax.runtime.arrays import to_uint8, to_unit
from videogen_jax.shapes.world import frame_times, render, sample_clip
from videogen_jax.stages.temporal import blend
from videogen_jax.weights.hub import EMBEDDED, resolve


def ways(interpolator: Interpolator, given: np.ndarray, factor: int) -> dict[str, np.ndarray]:
    """All frames, uint8 `((T - 1) * factor + 1, H, W, 3)`, by each way to make those between."""
    decoded = interpolate_frames(interpolator, given, factor, keep_frames=False)
    without_details = decoded.copy()
    without_details[::factor] = given
    nearest = np.round(np.arange(len(decoded)) / factor).astype(int)
    return {
        "repeated": given[nearest],
        "blended": np.asarray(to_uint8(blend(to_unit(jnp.asarray(given))[None], factor)))[0],
        "all decoded (--nokeep_frames)": decoded,
        "given frames kept, others decoded": without_details,
        "given frames kept, details carried": interpolate_frames(interpolator, given, factor),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factor", type=int, default=4, help="what the frame rate is multiplied by")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--given", type=int, default=16, help="frames that are given of each clip")
    parser.add_argument("--resolution", type=int, default=128, help="side of the frames in pixels")
    parser.add_argument("--seed", type=int, default=11, help="of the clips")
    asked = parser.parse_args()
    factor = asked.factor
    interpolator = Interpolator.from_pretrained(resolve(EMBEDDED))
    count = (asked.given - 1) * factor + 1
    between = [k for k in range(count) if k % factor]
    scores: dict[str, list[tuple[float, float]]] = {}
    for index in range(asked.clips):
        truth = render(sample_clip(asked.seed, index, "held_out"), frame_times(count), asked.resolution)
        for name, frames in ways(interpolator, truth[::factor], factor).items():
            scores.setdefault(name, []).append((psnr(frames[between], truth[between]), flicker_error(frames, truth)))
    print(f"{'':36}PSNR, dB   flicker")
    for name, values in scores.items():
        fidelity, flicker = np.mean(values, axis=0)
        print(f"{name:36}{fidelity:8.2f} {flicker:9.1f}")


if __name__ == "__main__":
    main()
