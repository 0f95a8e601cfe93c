"""The shapes world: grammar, split, placement, rendering, source."""

import re
import zlib

import numpy as np
import pytest

from tests.shapes.clips import clip_from_caption
from videogen_jax.shapes import world


def test_split_is_the_checksum_rule():
    triples = world.all_triples("all")
    assert len(set(triples)) == len(world.COLOURS) * len(world.SHAPES) * 20
    held_out = {t for t in triples if zlib.crc32(" ".join(t).encode()) % 10 == 0}
    assert set(world.all_triples("held_out")) == held_out
    assert set(world.all_triples("train")) == set(triples) - held_out
    assert zlib.crc32(b"red circle moving up left slowly") % 10 != 0  # the spelling of a triple, once by hand
    assert not world.is_held_out("red", "circle", "moving up left slowly")


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_sampled_clips_belong_to_their_split(split):
    clips = [world.sample_clip(7, i, split) for i in range(300)]
    assert all(world.is_held_out(c.colour, c.shape, c.motion) == (split == "held_out") for c in clips)


def test_every_attribute_value_is_drawn_about_equally_often():
    clips = [world.sample_clip(3, i, "all") for i in range(2000)]
    for field, values in (
        ("size", world.SIZES),
        ("colour", world.COLOURS),
        ("shape", world.SHAPES),
        ("motion", world.MOTIONS),
        ("background", world.BACKGROUNDS),
    ):
        drawn = [getattr(c, field) for c in clips]
        expected = len(clips) / len(values)
        counts = np.array([drawn.count(v) for v in values])
        assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected)), field


def test_sampling_is_a_function_of_seed_and_index():
    first = [world.sample_clip(1, i) for i in range(20)]
    assert first == [world.sample_clip(1, i) for i in range(20)]
    assert len({world.sample_clip(2, i) for i in range(20)} & set(first)) == 0
    assert len(set(first)) == 20


def test_every_second_clip_has_the_words_that_are_emphasised():
    plain = [world.sample_clip(5, i) for i in range(200)]
    clips = [world.sample_clip(5, i, emphasis=("small", "star")) for i in range(200)]
    assert clips[::2] == plain[::2]
    assert all((c.size, c.shape) == ("small", "star") for c in clips[1::2])
    assert len(set(clips)) == 200
    assert {c.colour for c in clips[1::2]} == set(world.COLOURS)
    assert not any(world.is_held_out(c.colour, c.shape, c.motion) for c in clips)
    with pytest.raises(ValueError, match="no caption of 10,000 clips of the train split has the words pentagon"):
        world.sample_clip(5, 1, emphasis=("pentagon",))


def test_the_shape_stays_inside_the_frame():
    times = world.frame_times(31)
    for i in range(500):
        clip = world.sample_clip(11, i, "all")
        centre, radius = clip.centre(times), clip.radius(times)[:, None]
        assert (centre - radius).min() > -1e-9, clip
        assert (centre + radius).max() < 1 + 1e-9, clip


@pytest.mark.parametrize("motion", world.MOTIONS)
def test_motion_is_what_its_words_say(motion):
    clip = clip_from_caption(f"a small red star {motion} on a black background", seed=5)
    start, end = clip.centre(np.array([0.0, 2.0]))
    radii = clip.radius(np.array([0.0, 1.0, 2.0]))
    dx, dy = end - start
    if motion.startswith("moving"):
        assert np.hypot(dx, dy) == pytest.approx(0.25 if motion.endswith("slowly") else 0.5)
        assert ("left" in motion, "right" in motion) == (dx < -1e-9, dx > 1e-9)
        assert ("up" in motion, "down" in motion) == (dy < -1e-9, dy > 1e-9)
        assert radii == pytest.approx(np.full(3, 0.11))
    elif motion in ("growing", "shrinking"):
        assert radii == pytest.approx(np.array([0.11, 0.165, 0.22] if motion == "growing" else [0.11, 0.0825, 0.055]))
        assert (dx, dy) == (0, 0)
    else:
        path = clip.centre(np.linspace(0, 2, 200))
        centre = start - 0.22 * np.array([np.cos(clip.phase), np.sin(clip.phase)])
        assert np.hypot(*(path - centre).T) == pytest.approx(np.full(200, 0.22))
        angle = np.unwrap(np.arctan2(*(path - centre).T[::-1]))  # y points down: clockwise is a growing angle
        assert (angle[-1] - angle[0]) / (2 * np.pi) == pytest.approx(-0.75 if "counter" in motion else 0.75)


def test_captions_round_trip():
    for i in range(300):
        clip = world.sample_clip(4, i, "all")
        said = world.parse_caption(clip.caption)
        assert said.caption == clip.caption
        assert (said.size, said.colour, said.shape, said.motion, said.background) == (
            clip.size,
            clip.colour,
            clip.shape,
            clip.motion,
            clip.background,
        )
    said = world.parse_caption("A large cyan star  moving up left quickly on a striped gray background")
    assert (said.motion_kind, said.direction, said.speed) == ("moving", "up left", "quickly")
    assert (said.tone, said.pattern) == ("gray", "striped")
    said = world.parse_caption("a large cyan star circling counterclockwise on a navy background")
    assert (said.motion_kind, said.direction, said.speed) == ("circling counterclockwise", None, None)
    assert (said.tone, said.pattern) == ("navy", "plain")


@pytest.mark.parametrize(
    ("caption", "word"),
    [
        ("a huge red circle growing on a gray background", "'huge'"),
        ("a small pink circle growing on a gray background", "'pink'"),
        ("a small red dog growing on a gray background", "'dog'"),
        ("a small red circle jumping on a gray background", "'jumping'"),
        ("a small red circle moving sideways slowly on a gray background", "'sideways'"),
        ("a small red circle moving up left on a gray background", "'on'"),
        ("a small red circle growing on a dotted background", "'dotted'"),
        ("a small red circle growing on a gray", "the end"),
        ("a small red circle growing on a gray background twice", "'twice'"),
        ("", "the end"),
    ],
)
def test_a_caption_outside_of_the_grammar_is_refused_by_its_word(caption, word):
    with pytest.raises(ValueError, match=re.escape(word)):
        world.parse_caption(caption)


@pytest.mark.parametrize("shape", world.SHAPES)
def test_coverage_has_the_shape_s_exact_area(shape):
    unit = {"circle": np.pi, "square": 1.7**2, "triangle": 3 * np.sqrt(3) / 4, "star": 2.25 * np.sin(np.pi / 5)}[shape]
    for x, y, radius, resolution in ((0.5, 0.5, 0.3, 64), (0.413, 0.587, 0.11, 32), (0.37, 0.61, 0.055, 128)):
        *_, coverage = world.shape_coverage(shape, x, y, radius, resolution)
        # A circle is a polygon of about 100 corners, which is 0.1% smaller than the disc.
        expected = unit * (radius * resolution) ** 2
        assert coverage.sum() == pytest.approx(expected, rel=2e-3 if shape == "circle" else 1e-9)
        assert coverage.max() == 1.0


@pytest.mark.parametrize("shape", world.SHAPES)
def test_coverage_agrees_with_counting_points(shape):
    top, left, coverage = world.shape_coverage(shape, 0.47, 0.52, 0.31, 24)
    full = np.zeros((24, 24))
    full[top : top + coverage.shape[0], left : left + coverage.shape[1]] = coverage
    fine = 24 * 20
    y, x = (np.mgrid[:fine, :fine] + 0.5) / fine
    dx, dy = (x - 0.47) / 0.31, (y - 0.52) / 0.31
    if shape == "circle":
        inside = dx**2 + dy**2 < 1
    elif shape == "square":
        inside = np.maximum(abs(dx), abs(dy)) < 0.85
    elif shape == "triangle":
        inside = (dy < 0.5) & (np.sqrt(3) * abs(dx) - dy < 1)
    else:  # in polar coordinates, folded to a tenth of the turn, the outline is one straight edge
        angle = np.abs((np.arctan2(dx, -dy) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        px, py = np.hypot(dx, dy) * np.cos(angle), np.hypot(dx, dy) * np.sin(angle)
        bx, by = 0.45 * np.cos(np.pi / 5), 0.45 * np.sin(np.pi / 5)
        inside = (bx - 1) * py - by * (px - 1) > 0
    counted = inside.reshape(24, 20, 24, 20).mean(axis=(1, 3))
    np.testing.assert_allclose(full, counted, atol=0.03)


def test_backgrounds_have_the_stated_tones():
    striped = world.render_background("striped gray", 128)
    assert striped[:, :16].min() == striped[:, :16].max() == 110
    np.testing.assert_allclose(striped[:, 16:32], 66)
    np.testing.assert_allclose(striped[:, 32:48], 110)
    checkered = world.render_background("checkered black", 128)
    np.testing.assert_allclose(checkered[:16, 16:32], 45)
    np.testing.assert_allclose(checkered[16:32, 16:32], 10)
    np.testing.assert_allclose(world.render_background("navy", 20), np.broadcast_to([20, 25, 80], (20, 20, 3)))
    # Where bars and pixels do not coincide, a pixel is the mean over its area.
    fine = world.render_background("checkered brown", 120).reshape(20, 6, 20, 6, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(world.render_background("checkered brown", 20), fine, atol=1e-9)


@pytest.mark.parametrize("low", [16, 32, 64])
def test_a_low_resolution_is_the_box_average_of_a_high_one(low):
    for i in range(12):
        clip, times = world.sample_clip(9, i, "all"), world.frame_times(4)
        high = world.render(clip, times, 128).astype(np.float64)
        factor = 128 // low
        averaged = high.reshape(4, low, factor, low, factor, 3).mean(axis=(2, 4))
        # At 16 pixels a bar of the background is two pixels wide, and tones mix with the shape within a pixel.
        assert np.abs(averaged - world.render(clip, times, low)).max() < 2.0, clip


def test_sixteen_frames_are_every_second_of_thirty_one():
    assert world.frame_times(16)[[0, -1]].tolist() == [0.0, 2.0]
    clip = world.sample_clip(2, 5)
    base = world.render(clip, world.frame_times(16), 64)
    assert base.shape == (16, 64, 64, 3)
    assert base.dtype == np.uint8
    np.testing.assert_array_equal(base, world.render(clip, world.frame_times(31), 64)[::2])
    assert not np.array_equal(base[0], base[-1])


def test_source_elements_and_indices():
    source = world.ShapesSource("held_out", seed=1, num_clips=5, num_frames=4, resolution=16)
    assert len(source) == 5
    element = source[4]
    assert element["video"].shape == (4, 16, 16, 3)
    assert element["video"].dtype == np.uint8
    assert element["fps"] == np.float32(1.5)
    assert element["fps"].dtype == np.float32
    said = world.parse_caption(element["caption"])
    assert world.is_held_out(said.colour, said.shape, said.motion)
    np.testing.assert_array_equal(element["video"], source[-1]["video"])
    np.testing.assert_array_equal(element["video"], source[np.int64(4)]["video"])
    for index in (5, -6):
        with pytest.raises(IndexError, match="5 clips"):
            source[index]
    assert len(list(source)) == 5
    again = world.ShapesSource("held_out", seed=1, num_clips=5, num_frames=4, resolution=16)
    assert repr(source) == repr(again)
    assert repr(source) != repr(world.ShapesSource("train", seed=1, num_clips=5, num_frames=4, resolution=16))


@pytest.mark.parametrize(
    ("field", "value"), [("split", "test"), ("seed", -1), ("num_clips", 0), ("num_frames", 1), ("resolution", 4)]
)
def test_source_refuses_what_cannot_work(field, value):
    arguments = {"split": "train", "seed": 0, "num_clips": 1, "num_frames": 2, "resolution": 8, field: value}
    with pytest.raises(ValueError, match=field):
        world.ShapesSource(**arguments)


def test_grain_reads_the_source():
    grain = pytest.importorskip("grain.python")
    source = world.ShapesSource("train", seed=0, num_clips=6, num_frames=2, resolution=8)
    dataset = grain.MapDataset.source(source).shuffle(seed=3).batch(3)
    batch = dataset[0]
    assert batch["video"].shape == (3, 2, 8, 8, 3)
    assert len(batch["caption"]) == 3
