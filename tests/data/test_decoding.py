import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.data.synthetic_videos import RATES, draw, is_upright, make_corpus, read_time, write_video
from videogen_jax.data.decoding import BadVideo, FrameArray, Framing, Timing, VideoFile, nearest_frames, read_frames

ROUNDING = 0.0006  # the clock in the images counts milliseconds


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), count=60, faulty=12)


def nearest(frame_times, times):
    return [min(frame_times, key=lambda frame: abs(frame - time)) for time in times]


def test_frames_are_the_nearest_in_time_and_upright(corpus):
    good = [video for video in corpus if video.fault is None]
    assert len({(video.codec, video.rate) for video in good}) == 12
    assert {video.rotation for video in good} > {0, 90}
    for number, video in enumerate(good):
        start = np.random.default_rng(number).uniform(0.0, video.times[-1] - 0.9)
        times = start + np.arange(8) / 9
        with VideoFile(str(video.path)) as file:
            frames = read_frames(file, times, Framing(64))
        assert frames.shape == (8, 64, 64, 3)
        decoded = [read_time(frame) for frame in frames]
        error, smallest = np.abs(decoded - times), np.abs(np.array(nearest(video.times, times)) - times)
        np.testing.assert_allclose(error, smallest, atol=2 * ROUNDING, err_msg=str(video))
        assert all(is_upright(frame) for frame in frames), video


def test_reading_from_memory_equals_reading_the_file(corpus):
    video = next(video for video in corpus if video.fault is None)
    with VideoFile(str(video.path)) as file:
        frames = read_frames(file, [0.2, 0.4], Framing(48))
    with VideoFile(io.BytesIO(video.path.read_bytes())) as file:
        np.testing.assert_array_equal(read_frames(file, [0.2, 0.4], Framing(48)), frames)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("index lost", "not a readable video"),
        ("truncated", "damaged at"),
        ("zero bytes", "the file is empty"),
        ("audio only", "it has no video stream, only audio"),
        ("not a video", "not a readable video"),
        ("missing file", "the file does not exist"),
        ("too short", "too short: it ends at"),
    ],
)
def test_faults_are_named(corpus, fault, reason):
    for video in corpus:
        if video.fault == fault:
            times = (
                [0.0, 0.5, 1.0] if fault == "too short" else np.arange(0.0, video.times[-1] if video.times else 1, 0.1)
            )
            with pytest.raises(BadVideo, match=reason), VideoFile(str(video.path)) as file:
                read_frames(file, times, Framing(32))


def test_a_square_may_be_anywhere_and_mirrored(tmp_path):
    write_video(tmp_path / "a.mp4", [0.0, 0.1], codec="h264", size=(64, 128))

    def read(**framing):
        with VideoFile(str(tmp_path / "a.mp4")) as file:
            return read_frames(file, [0.0], Framing(64, **framing))[0].astype(int)

    centre, left, right = read(), read(position=0.0), read(position=1.0)
    np.testing.assert_array_equal(left[:, 32:], centre[:, :32])
    np.testing.assert_array_equal(right[:, :32], centre[:, 32:])
    np.testing.assert_array_equal(read(flip=True), centre[:, ::-1])
    assert np.abs(left - right).mean() > 10


def test_shrinking_averages_areas(tmp_path):
    """Against Pillow's box filter on a picture full of detail; without averaging the error is 20 times as large."""
    picture = draw(0.0, (256, 256))
    picture[::2] //= 2
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width = stream.height = 256
        stream.pix_fmt = "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    with VideoFile(str(tmp_path / "a.mkv")) as file:
        frame = read_frames(file, [0.0], Framing(64))[0]
    truth = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX)).astype(int)
    assert np.abs(frame - truth).mean() < 1.5
    assert np.abs(picture[::4, ::4] - truth).mean() > 20


def test_the_colour_space_of_unmarked_files_depends_on_their_height(tmp_path):
    """The same numbers mean BT.709 in a high-definition file and BT.601 in a smaller one."""
    for height, matrix in ((360, "bt601"), (720, "bt709")):
        colour = {"bt601": (0.299, 0.587), "bt709": (0.2126, 0.7152)}[matrix]
        red, green = colour
        luma = round(16 + 219 * (red * 200 + green * 40 + (1 - red - green) * 40) / 255)
        cb = round(128 + 224 * (40 - (red * 200 + green * 40 + (1 - red - green) * 40)) / (2 * (red + green)) / 255)
        cr = round(128 + 224 * (200 - (red * 200 + green * 40 + (1 - red - green) * 40)) / (2 * (1 - red)) / 255)
        planes = np.concatenate(
            [np.full(height * height, luma), np.full(height**2 // 4, cb), np.full(height**2 // 4, cr)]
        )
        frame = av.VideoFrame.from_ndarray(planes.reshape(-1, height).astype(np.uint8), format="yuv420p")
        path = tmp_path / f"{height}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "crf": "1"})
            stream.width = stream.height = height
            stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with VideoFile(str(path)) as file:
            middle = read_frames(file, [0.0], Framing(32))[0, 16, 16]
        np.testing.assert_allclose(middle, (200, 40, 40), atol=4)


def test_times_between_frames_select_the_nearer_one():
    frames = [(0.0, "a"), (1.0, "b"), (1.2, "c")]
    assert [x for _, x in nearest_frames(frames, [0.0, 0.49, 0.51, 1.09, 1.11, 1.29, 1.31])] == list("aabbcc")
    assert list(nearest_frames(frames, [2.0])) == []
    assert list(nearest_frames([], [0.0])) == []


def test_too_low_a_frame_rate_is_refused():
    video = FrameArray(np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8), fps=4.0)
    np.testing.assert_array_equal(read_frames(video, [0.25, 0.75], Framing(4))[:, 0, 0, 0], [1, 3])
    with pytest.raises(BadVideo, match=r"frame rate too low: 4 distinct frames for 8 samples at 8 per second"):
        read_frames(video, np.arange(8) / 8, Framing(4))


def test_frames_in_memory_must_be_uint8_images():
    with pytest.raises(BadVideo, match=r"frames are \(3, 4, 4\) float32, not \(T, H, W, 3\) uint8"):
        FrameArray(np.zeros((3, 4, 4), np.float32), 8.0)


def test_timing_matches_the_frames_and_constant_rates_are_exact(corpus):
    for video in corpus:
        if video.fault is not None:
            continue
        with VideoFile(str(video.path)) as file:
            timing = file.timing()
            times = [time for time, _ in file.frames()]
            assert float(file.start) == pytest.approx(video.start_time, abs=0.001)
        assert timing.rate == RATES[video.rate]
        assert [timing.nearest(time) for time in times] == list(range(len(timing)))
        exact = [float(timing.time(number)) for number in range(len(timing))]
        assert exact == pytest.approx(video.times, abs=1e-9 if timing.rate else 0.001)


def test_a_constant_rate_may_be_off_by_a_tick():
    tick = Fraction(1, 1000)
    rounded = [round(Fraction(1000 * 1001 * k, 24000)) for k in range(500)]
    assert Timing.from_stamps(rounded, tick).rate == Fraction(24000, 1001)
    assert Timing.from_stamps(rounded, tick, [Fraction(24), Fraction(24000, 1001)]).rate == Fraction(24000, 1001)
    uneven = Timing.from_stamps([0, 40, 80, 130], tick)
    assert uneven.rate is None
    assert [uneven.duration(number) for number in range(4)] == [40 * tick, 40 * tick, 50 * tick, 50 * tick]
    assert Timing.from_stamps([0], tick).rate is None


def test_a_full_image_keeps_its_resolution_and_has_square_pixels(corpus):
    for video in corpus:
        if video.fault is not None:
            continue
        with VideoFile(str(video.path)) as file:
            picture = file.full_image(next(file.frames())[1])
        assert picture.shape[1] / picture.shape[0] == pytest.approx(video.size[1] / video.size[0], abs=0.01)
        assert picture.shape >= (*video.size, 3)  # no column or row of what is coded is lost
        assert is_upright(picture)
        assert picture.flags.c_contiguous
