"""Warping error, flicker and reference fidelity: nothing on ground truth, and what is known where it was disturbed."""

import numpy as np
import pytest

from tests.shapes.clips import clip_from_caption
from videogen_jax.metrics import consistency
from videogen_jax.shapes import world
from videogen_jax.shapes.flow import optical_flow
from videogen_jax.shapes.reader import read_clip

SIDE = 64
CAPTIONS = [
    "a large red circle moving right quickly on a gray background",
    "a large white star growing on a striped navy background",
    "a large cyan square shrinking on a checkered brown background",
    "a large green triangle circling clockwise on a black background",
]


def _clip(caption):
    frames = world.render(clip_from_caption(caption, 3), world.frame_times(16), SIDE)
    return frames, read_clip(frames)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_ground_truth_is_consistent(caption):
    frames, reading = _clip(caption)
    flow, valid, still = optical_flow(reading, SIDE)
    assert valid.mean() > 0.6
    assert (valid & ~still).any(axis=(1, 2)).all()  # the shape itself is measured too
    assert consistency.warping_error(frames, flow, valid) < 1e-5
    assert consistency.still_flicker(frames, still) == 0.0
    clip = clip_from_caption(caption, 3)
    times = world.frame_times(16)
    if "moving" in caption:
        true = SIDE * np.diff(clip.centre(times), axis=0)
        for k in range(15):
            inside = valid[k] & ~still[k]
            np.testing.assert_allclose(flow[k][inside].mean(axis=0), true[k], atol=0.2)


def test_what_changes_is_counted():
    frames, reading = _clip(CAPTIONS[0])
    flow, valid, still = optical_flow(reading, SIDE)
    brighter = frames.copy()
    brighter[1::2] += 5  # every second frame; the red of 230 stays below 255
    assert consistency.still_flicker(brighter, still) == pytest.approx(5.0)
    assert consistency.warping_error(brighter, flow, valid) == pytest.approx(3 * (5 / 255) ** 2, rel=0.05)
    frozen = np.repeat(frames[:1], 16, axis=0)
    moving = consistency.warping_error(frozen, flow, valid)  # the shape stays, its flow says that it moves
    assert moving > 5e-4  # of ground truth it is nothing but rounding, 1e-14


def test_warping_by_hand():
    frames = np.zeros((2, 4, 5, 3), np.uint8)
    frames[0, :, 2], frames[1, :, 3] = 100, 100
    flow = np.zeros((1, 4, 5, 2))
    flow[..., 0] = 1.0
    valid = np.ones((1, 4, 5), bool)
    valid[..., -1] = False  # leaves the frame
    assert consistency.warping_error(frames, flow, valid) == 0.0
    expected = 3 * (100 / 255) ** 2 / 2  # two of the four valid columns are wrong
    assert consistency.warping_error(frames, 0 * flow, valid) == pytest.approx(expected)
    assert consistency.warping_error(frames, flow, valid & False) is None
    with pytest.raises(ValueError, match=r"flow \(T - 1, H, W, 2\)"):
        consistency.warping_error(frames, flow[0], valid)


def test_without_a_shape_nothing_is_claimed():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (6, SIDE, SIDE, 3)).astype(np.uint8)
    found = consistency.measure_consistency(noise, noise[0], optical_flow(read_clip(noise), SIDE))
    assert found["warping_error"] is None
    assert found["still_flicker"] is None
    assert (found["reference_psnr"], found["reference_ssim"]) == (consistency.MOST_PSNR, pytest.approx(1.0))
