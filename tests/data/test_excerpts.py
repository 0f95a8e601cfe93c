"""Clips for metrics, identified by the times encoded in their frames."""

import numpy as np
import pytest

from tests.data.synthetic_videos import draw, is_upright, read_time, write_video
from videogen_jax.data.decoding import BadVideo
from videogen_jax.data.entries import Item
from videogen_jax.data.excerpts import Excerpt, read_excerpt

FPS = 25


@pytest.fixture(scope="module")
def item(tmp_path_factory):
    """Two seconds of MPEG-4 in an .avi, as UCF-101's files are."""
    path = tmp_path_factory.mktemp("videos") / "v_YoYo_g01_c01.avi"
    write_video(path, np.arange(2 * FPS) / FPS, codec="mpeg4", size=(96, 128))
    return Item("v_YoYo_g01_c01", None, str(path), ".avi")


def times(frames):
    return np.array([read_time(frame) for frame in frames])


def test_the_first_frames(item):
    own = read_excerpt(item, Excerpt(16, None, 64, "first"), seed=1)
    assert own.shape == (16, 64, 64, 3)
    np.testing.assert_allclose(times(own), np.arange(16) / FPS, atol=1e-3)
    slower = read_excerpt(item, Excerpt(8, 5.0, 64, "first"), seed=1)
    np.testing.assert_allclose(times(slower), np.arange(8) / 5, atol=1e-3)


def test_the_middle(item):
    middle = times(read_excerpt(item, Excerpt(16, None, 64, "middle"), seed=1))
    np.testing.assert_allclose(middle, np.arange(17, 33) / FPS, atol=1e-3)  # of frames 0 to 49


def test_a_random_window(item):
    starts = set()
    for seed in range(12):
        for excerpt in (Excerpt(16, None, 64, "random"), Excerpt(16, 25.0, 64, "random")):
            clip_times = times(read_excerpt(item, excerpt, seed))
            np.testing.assert_allclose(np.diff(clip_times), 1 / FPS, atol=2e-3)
            assert 0 <= clip_times[0] <= clip_times[-1] <= 2.0 - 1 / FPS + 1e-3
            starts.add(clip_times[0])
    assert len(starts) > 8
    assert max(starts) > 1.0 > min(starts)
    again = read_excerpt(item, Excerpt(16, None, 64, "random"), 11)
    np.testing.assert_array_equal(again, read_excerpt(item, Excerpt(16, None, 64, "random"), 11))


def test_whole_frames(item):
    frames = read_excerpt(item, Excerpt(4, None, None, "first"), seed=0)
    assert frames.shape == (4, 96, 128, 3)
    assert all(is_upright(frame) for frame in frames)
    expected = np.stack([draw(k / FPS, (96, 128)) for k in range(4)]).astype(int)
    assert np.abs(frames - expected).mean() < 6


@pytest.mark.parametrize(
    ("excerpt", "message"),
    [
        (Excerpt(51, None, 64, "random"), "too short: it has 50 frames, but 51 are needed"),
        (Excerpt(16, 5.0, 64, "random"), "too short: it ends at 1.80 s, but frames up to 3.00 s"),
        (Excerpt(16, 60.0, 64, "first"), "frame rate too low"),
    ],
)
def test_excerpts_that_do_not_fit_are_refused(item, excerpt, message):
    with pytest.raises(BadVideo, match=message):
        read_excerpt(item, excerpt, seed=0)
