"""The pixel reader on ground truth, on spoilt clips, and on clips that show nothing of the world."""

import numpy as np
import pytest
from scipy import ndimage

from tests.shapes.clips import clip_from_caption
from videogen_jax.shapes import reader, world


def _accuracy(seed, count, num_frames, spoil=None, resolution=128):
    scores = []
    for i in range(count):
        clip = world.sample_clip(seed, i, "all")
        frames = world.render(clip, world.frame_times(num_frames), resolution)
        if spoil is not None:
            frames = spoil(frames.astype(np.float32), np.random.default_rng(i))
            frames = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
        scores.append(reader.score(frames, clip.caption))
    return reader.summarize(scores)


def _assert_at_least(summary, least):
    assert set(summary) == {*reader.ATTRIBUTES, "all"}
    assert min(summary[name] for name in reader.ATTRIBUTES) >= least, summary


def test_ground_truth():
    _assert_at_least(_accuracy(2024, 100, 16), 1.0)  # some are read wrongly only among hundreds


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [16, 31])
def test_ground_truth_of_a_thousand_clips(num_frames):
    _assert_at_least(_accuracy(4000 + num_frames, 1000, num_frames), 0.995)


@pytest.mark.parametrize("resolution", [32, 64, 256])
def test_other_resolutions(resolution):
    _assert_at_least(_accuracy(31, 25, 8, resolution=resolution), 0.96)


def _noise(frames, rng):
    return frames + rng.normal(0, 5, frames.shape)


def _blur(frames, rng):
    return ndimage.gaussian_filter(frames, (0, 1, 1, 0))


def _tint(frames, rng):
    return frames * rng.uniform(0.93, 1.07, 3) + rng.uniform(-8, 8, 3)


def _blobs(frames, rng):
    for _ in range(4):
        start, y, x, side = rng.integers(0, (14, 118, 118, 6))
        frames[start : start + 2, y : y + side + 3, x : x + side + 3] = rng.uniform(0, 255, 3)
    return frames


@pytest.mark.parametrize(
    "steps",
    [(_blur, _noise), (_tint, _noise), (_blobs, _noise), (_tint, _blobs, _blur, _noise)],
    ids=lambda steps: "".join(step.__name__ for step in steps),
)
def test_spoilt_clips(steps):
    def spoil(frames, rng):
        for step in steps:
            frames = step(frames, rng)
        return frames

    _assert_at_least(_accuracy(77, 25, 16, spoil), 1.0)


def test_size_of_growing_and_shrinking_is_the_first():
    for size in world.SIZES:
        for motion in ("growing", "shrinking"):
            clip = clip_from_caption(f"a {size} red circle {motion} on a gray background", seed=3)
            reading = reader.read_clip(world.render(clip, world.frame_times(16), 128))
            assert (reading.size, reading.motion_kind) == (size, motion)
            np.testing.assert_allclose(reading.radii, clip.radius(world.frame_times(16)), rtol=0.01)


def test_track_is_accurate_to_a_fraction_of_a_pixel():
    clip = clip_from_caption("a small cyan star circling clockwise on a checkered brown background", seed=8)
    reading = reader.read_clip(world.render(clip, world.frame_times(16), 128))
    np.testing.assert_allclose(reading.centres, clip.centre(world.frame_times(16)), atol=0.1 / 128)


def test_score_tells_each_error_apart():
    clip = clip_from_caption("a small red circle moving left slowly on a striped gray background", seed=1)
    frames = world.render(clip, world.frame_times(16), 128)
    for caption, wrong in (
        ("a small red circle moving left slowly on a striped gray background", set()),
        ("a large red circle moving left slowly on a striped gray background", {"size"}),
        ("a small orange circle moving left slowly on a striped gray background", {"colour"}),
        ("a small red star moving left slowly on a striped gray background", {"shape"}),
        ("a small red circle moving up left slowly on a striped gray background", {"direction"}),
        ("a small red circle moving left quickly on a striped gray background", {"speed"}),
        ("a small red circle growing on a striped gray background", {"motion_kind"}),
        ("a small red circle moving left slowly on a gray background", {"background"}),
        ("a small red circle moving left slowly on a striped brown background", {"background"}),
    ):
        result = reader.score(frames, caption)
        assert {name for name, right in result.items() if not right} == wrong, caption
        assert ("speed" in result) == ("direction" in result) == ("moving" in caption)


def test_a_clip_without_a_shape_and_one_without_motion():
    empty = np.rint(world.render_background("checkered navy", 128)).astype(np.uint8)
    reading = reader.read_clip(np.repeat(empty[None], 16, axis=0))
    assert reading.background == "checkered navy"
    assert (reading.colour, reading.shape, reading.size, reading.motion_kind) == (None, None, None, None)
    clip = clip_from_caption("a large green star moving down quickly on a navy background", seed=1)
    reading = reader.read_clip(world.render(clip, np.zeros(16), 128))
    assert (reading.colour, reading.shape, reading.size) == ("green", "star", "large")
    assert (reading.motion_kind, reading.direction, reading.speed) == (None, None, None)


def test_noise_alone_is_no_shape():
    frames = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
    assert reader.read_clip(frames).shape is None


def test_summary_counts_only_clips_that_have_the_attribute():
    moving = dict.fromkeys(reader.ATTRIBUTES, True)
    growing = {"colour": False, "background": True, "size": True, "shape": True, "motion_kind": True}
    summary = reader.summarize([moving, {**moving, "speed": False}, growing])
    assert summary["direction"] == 1.0
    assert summary["speed"] == 0.5
    assert summary["colour"] == pytest.approx(2 / 3)
    assert summary["all"] == pytest.approx(1 / 3)
    assert "direction" not in reader.summarize([growing])
    with pytest.raises(ValueError, match="at least one"):
        reader.summarize([])


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((16, 64, 64, 3), np.float32),
        np.zeros((16, 64, 32, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((3, 64, 64, 3), np.uint8),
        np.zeros((16, 8, 8, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(frames):
    with pytest.raises(ValueError, match="frames must be"):
        reader.read_clip(frames)


def test_still_images_are_read():
    for number in range(40):
        clip = world.sample_clip(91, number, "all")
        (image,) = world.render(clip, [0.0], 128)
        seen = reader.read_image(image)
        assert all(reader.compare(seen, clip.caption, reader.IMAGE_ATTRIBUTES).values()), (clip.caption, seen)
        assert (seen.motion_kind, seen.direction, seen.speed) == (None, None, None)
    with pytest.raises(ValueError, match="image must be"):
        reader.read_image(np.zeros((2, 32, 32, 3), np.uint8))
