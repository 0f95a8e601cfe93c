"""The made videos: what their pictures say can be read after decoding, turning, cropping and resizing."""

import csv
import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.data.synthetic_videos import (
    FAULTS,
    FORMS,
    MAX_TIME,
    RATES,
    draw,
    is_upright,
    make_corpus,
    read_time,
    write_video,
)

SIZES = [(96, 96), (96, 128), (128, 96), (129, 171), (171, 129), (99, 131), (200, 112), (360, 640)]
TIMES = [0.0, 0.033, 0.5, 1.001, 2.047, 7.777, 12.3, MAX_TIME]


def small(picture, side):
    """The central square of a picture, resized."""
    height, width = picture.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = picture[top : top + edge, left : left + edge]
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.LANCZOS))


def decoded(path):
    """Time stamps, and frames as they are displayed: turned upright, with square pixels."""
    times, frames = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        ratio = stream.sample_aspect_ratio or 1
        for frame in container.decode(stream):
            image = Image.fromarray(frame.to_ndarray(format="rgb24"))
            image = image.resize((round(frame.width * ratio), frame.height))
            times.append(float(frame.pts * frame.time_base))
            frames.append(np.rot90(np.asarray(image), frame.rotation // 90))
    return np.array(times), frames


@pytest.mark.parametrize("side", [48, 64])
@pytest.mark.parametrize("size", SIZES)
def test_an_image_encodes_its_time_and_orientation(size, side):
    for seed, time in enumerate(TIMES):
        frame = small(draw(time, size, seed=seed), side)
        assert read_time(frame) == round(time, 3)
        assert is_upright(frame)
        for mirrored in (False, True):
            for turns in range(4):
                if mirrored or turns:
                    wrong = np.rot90(frame[:, ::-1] if mirrored else frame, turns)
                    assert not is_upright(wrong)
                    assert read_time(wrong) is None


def test_blended_or_cropped_images_have_no_time():
    one, other = (draw(time, (96, 160)).astype(int) for time in (0.5, 0.6))
    assert read_time(((one + other) // 2).astype(np.uint8)) is None
    assert read_time(one.astype(np.uint8)[:, :96]) is None
    assert read_time(draw(0.5, (96, 160), clock=False)) is None
    assert not is_upright(np.asarray(Image.fromarray(one.astype(np.uint8)).resize((64, 64))))


def test_the_texture_moves_and_changes_with_the_scene():
    def difference(a, b, **options):
        a, b = (draw(time, (96, 128), clock=False, scene_changes=(1.0,), **options) for time in (a, b))
        return np.abs(a.astype(int) - b).mean()

    assert 2 < difference(0.0, 0.125) < 20
    assert difference(0.0, 0.9, moving=False) == 0
    assert difference(0.95, 1.0) > 50
    assert difference(0.95, 1.0, moving=False) > 50
    first, second = draw(0.0, (96, 128), clock=False), draw(1.0, (96, 128), clock=False)
    np.testing.assert_array_equal(second[80:, 30:50], first[80 - 10 : 86, 30 - 24 : 50 - 24])
    with pytest.raises(ValueError, match=r"time is 20, but must be from 0 to 16\.383"):
        draw(20, (96, 128))


@pytest.mark.parametrize(
    ("codec", "suffix", "rate", "rotation"),
    [(*form, rotation) for form in FORMS for rotation in (0, 90, 180, 270) if rotation == 0 or form[1] != ".avi"],
)
def test_decoded_times_are_the_written_ones(tmp_path, codec, suffix, rate, rotation):
    path = tmp_path / f"a{suffix}"
    times = (
        np.arange(0, 0.5, 1 / float(RATES[rate])) if RATES[rate] else np.cumsum([0, 15, 70, 33, 16, 41, 68, 20]) / 1e3
    )
    write_video(path, times, codec=codec, size=(128, 96), rotation=rotation)
    stamps, frames = decoded(path)
    np.testing.assert_allclose(stamps, times, atol=1e-3)
    assert {frame.shape for frame in frames} == {(128, 96, 3)}
    assert all(is_upright(small(frame, 48)) for frame in frames)
    np.testing.assert_allclose([read_time(small(frame, 48)) for frame in frames], times, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "h264", {"start_time": 1.25}),
        ("a.mp4", "h264", {"b_frames": 2, "faststart": True, "start_time": 0.1}),
        ("a.mp4", "mpeg4", {"b_frames": 2, "start_time": 0.1}),
        ("a.webm", "vp9", {"start_time": 1.25}),
        ("a.mp4", "h264", {"size": (129, 171)}),
        ("a.mp4", "mpeg4", {"size": (171, 129), "rotation": 90}),
        ("a.webm", "vp9", {"size": (129, 171), "rotation": 270}),
        ("a.avi", "mpeg4", {"size": (99, 131)}),
        ("a.mp4", "h264", {"size": (96, 144), "sample_aspect_ratio": Fraction(4, 3)}),
        ("a.mp4", "mpeg4", {"size": (96, 144), "sample_aspect_ratio": Fraction(3, 4)}),
        ("a.mp4", "h264", {"size": (144, 96), "sample_aspect_ratio": Fraction(4, 3), "rotation": 90}),
        ("a.avi", "mpeg4", {"size": (96, 144), "sample_aspect_ratio": Fraction(4, 3)}),
    ],
)
def test_unusual_formats(tmp_path, name, codec, options):
    times = np.arange(9) / 24
    options = {"size": (96, 128), **options}
    write_video(tmp_path / name, times, codec=codec, **options)
    stamps, frames = decoded(tmp_path / name)
    np.testing.assert_allclose(stamps, times + options.get("start_time", 0), atol=1e-3)
    assert {frame.shape[:2] for frame in frames} == {options["size"]}
    assert all(is_upright(small(frame, 64)) for frame in frames)
    np.testing.assert_allclose([read_time(small(frame, 64)) for frame in frames], times, atol=1e-3)


@pytest.mark.parametrize("ratio", [Fraction(4, 3), Fraction(3, 4)])
def test_pixels_taken_for_square_are_noticed(tmp_path, ratio):
    write_video(tmp_path / "a.mp4", [0.0, 0.1], codec="h264", size=(96, 144), sample_aspect_ratio=ratio)
    with av.open(str(tmp_path / "a.mp4")) as container:
        coded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert coded.shape == (96, 144 / ratio, 3)
    assert not is_upright(small(coded, 64))
    assert read_time(small(coded, 64)) is None


@pytest.mark.parametrize(
    ("name", "codec", "options", "message"),
    [
        ("a.avi", "mpeg4", {"rotation": 90}, "an .avi has no rotation"),
        ("a.avi", "mpeg4", {"times": [0.0, 0.1, 0.15]}, "an .avi has a constant rate"),
        ("a.webm", "vp9", {"sample_aspect_ratio": Fraction(4, 3)}, "the shape of the pixels"),
        (
            "a.mp4",
            "h264",
            {"sample_aspect_ratio": Fraction(5, 3)},
            "a width of 128 is not a whole number of pixels 5/3 wide",
        ),
    ],
)
def test_unsupported_settings_are_refused(tmp_path, name, codec, options, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, **{"times": [0.0, 0.1, 0.2], "codec": codec, "size": (96, 128), **options})
    assert not list(tmp_path.iterdir())


def test_a_corpus(tmp_path):
    videos = make_corpus(tmp_path / "a", count=20, faulty=12)
    assert len(videos) == 20
    expected = sorted("too short" if fault == "one picture" else fault for fault in FAULTS)
    assert sorted(video.fault for video in videos if video.fault) == expected
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["captions.csv", "videos"]
    files = {video.path for video in videos if video.fault != "missing file"}
    assert set((tmp_path / "a" / "videos").iterdir()) == files
    assert all(video.path.stem == video.id for video in videos)

    text = (tmp_path / "a" / "captions.csv").read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["videoid", "page_dir", "name"]
    assert [(row[0], row[1], row[2].encode("utf-8", "surrogateescape")) for row in rows[1:]] == [
        (video.id, "", video.caption) for video in videos
    ]
    for video in videos:
        if video.fault == "wrong encoding":
            with pytest.raises(UnicodeDecodeError):
                video.caption.decode()
        else:
            assert bool(video.caption.decode().strip()) == (video.fault not in ("empty caption", "blank caption"))
        if video.fault in ("index lost", "zero bytes", "not a video", "missing file"):
            with pytest.raises((av.FFmpegError, OSError)):
                av.open(str(video.path))
        elif video.fault == "audio only":
            with av.open(str(video.path)) as container:
                assert [stream.type for stream in container.streams] == ["audio"]
                assert sum(frame.samples for frame in container.decode(audio=0)) >= 32000
        elif video.fault == "truncated":
            with av.open(str(video.path)) as container:
                assert container.streams.video[0].frames == len(video.times)
                frames = container.decode(video=0)
                for _ in range(len(video.times) // 3):
                    next(frames)
                with pytest.raises(av.FFmpegError):
                    list(frames)
        else:
            stamps, frames = decoded(video.path)
            np.testing.assert_allclose(stamps - video.start_time, video.times, atol=1e-3)
            assert frames[0].shape[:2] == video.size
            assert is_upright(small(frames[-1], 64))
            assert read_time(small(frames[-1], 64)) == pytest.approx(video.times[-1], abs=1e-3)
            assert (video.times[-1] < 1) == (video.fault == "too short")
    ids = [video.id for video in videos]
    (double,) = (video for video in videos if video.fault == "duplicate id")
    assert videos[ids.index(double.id)].fault is None
    assert len(set(ids)) == 19


def test_a_corpus_is_a_function_of_its_seed(tmp_path):
    first, again, other = (make_corpus(tmp_path / name, 13, 12, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert [video.times for video in first] == [video.times for video in again]
    assert [video.times for video in first] != [video.times for video in other]
    for video, twin in zip(first, again, strict=True):
        assert (video.id, video.caption, video.fault) == (twin.id, twin.caption, twin.fault)
        if video.fault != "missing file" and video.path.suffix == ".mp4":
            assert video.path.read_bytes() == twin.path.read_bytes()
    with pytest.raises(ValueError, match="faulty is 3, but must be 0 or from 12 to below count, 20"):
        make_corpus(tmp_path / "d", 20, 3)
