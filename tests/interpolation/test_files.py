"""Interpolation of files: frames are identified by the times encoded in them, sound by its packets."""

import collections
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.data.synthetic_videos import FAULTS, is_upright, make_corpus, read_time, write_video
from videogen_jax.interpolation.files import Plan, interpolate_file
from videogen_jax.video_io import read_video

NTSC = Fraction(30000, 1001)

pytestmark = pytest.mark.filterwarnings("ignore:the model was trained on")


def regular(count: int, rate: Fraction | int = 12) -> list[float]:
    return [float(k / Fraction(rate)) for k in range(count)]


def add_sound(video: Path, target: Path, codec: str, seconds: float, delay: Fraction = Fraction(0)) -> Path:
    """Copy the packets of `video`, delayed by `delay` seconds, and add a tone of 440 Hz that starts at 0."""
    rate = 48_000
    wave = (0.3 * np.sin(2 * np.pi * 440 / rate * np.arange(round(seconds * rate)))).astype(np.float32)
    with av.open(str(video)) as source, av.open(str(target), "w") as container:
        video_stream = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream(codec, rate=rate, layout="mono")
        sound.codec_context.open()
        container.metadata["title"] = "a tone"
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                shift = round(delay / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = video_stream
                container.mux(packet)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        context = sound.codec_context
        resampler = av.AudioResampler(context.format, context.layout, context.rate, context.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return target


def read_frames(path: Path) -> tuple[list[np.ndarray], list[Fraction]]:
    """Return the frames of a file and their display times in its own clock."""
    with av.open(str(path)) as container:
        frames = [(f.to_ndarray(format="rgb24"), f.pts * f.time_base) for f in container.decode(video=0)]
    return [frame for frame, _ in frames], [time for _, time in frames]


def read_sound(path: Path) -> list[tuple[Fraction, str]]:
    """Return the sound packets of a file: their time, and a checksum of their bytes."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux() if p.stream.type == "audio" and p.dts is not None]
        return [(p.pts * p.time_base, hashlib.sha256(bytes(p)).hexdigest()) for p in packets]


class Blending:
    """In the place of an interpolator, for tests of what surrounds it: it blends, and reads ahead as far."""

    factors, resolution = (1, 2, 4), 16

    def interpolate(self, frames: Iterable[np.ndarray], factor: int, keep_frames: bool) -> Iterator[np.ndarray]:
        assert keep_frames
        weights = np.arange(factor)[:, None, None, None] / factor
        frames, ahead = iter(frames), collections.deque()
        while ahead.extend(itertools.islice(frames, 6 - len(ahead))) or ahead:
            first = ahead.popleft()
            second = ahead[0] if ahead else first
            yield np.rint((1 - weights) * first + weights * second).astype(np.uint8)


def raise_rate(
    source: Path, target: Path, factor: int = 2, slow_motion: bool = False, interpolator=None, **options
) -> Path:
    plan = Plan.from_file(source, target, factor, slow_motion)
    interpolate_file(interpolator or Blending(), plan, **options)
    return target


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """9 frames, 12 a second, 48x64."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, regular(9), codec="h264", size=(48, 64), b_frames=2)
    return path


@pytest.mark.parametrize("rate", [12, NTSC, Fraction(25, 2)])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_constant_rate_is_multiplied_exactly(tmp_path, rate, suffix):
    source = tmp_path / "a.mp4"
    write_video(source, regular(9, rate), codec="h264", size=(48, 64))
    target = raise_rate(source, tmp_path / f"b{suffix}", 4)
    _, times = read_frames(target)
    tick = Fraction(1, 1000) if suffix == ".webm" else 0
    assert len(times) == 36
    assert all(abs(time - k / (4 * Fraction(rate))) <= tick for k, time in enumerate(times))
    with av.open(str(target)) as container:
        assert suffix == ".webm" or container.streams.video[0].average_rate == 4 * rate
        assert container.duration / av.time_base == pytest.approx(float(9 / Fraction(rate)), abs=0.002)


def test_source_frames_are_kept_at_their_times(tmp_path, clip, tiny_interpolator):
    frames, times = read_frames(raise_rate(clip, tmp_path / "b.mp4", 4, interpolator=tiny_interpolator))
    for k in range(9):
        assert read_time(frames[4 * k]) == pytest.approx(float(times[4 * k]), abs=0.001)
    source_frames, _ = read_video(clip)
    assert np.abs(np.stack(frames[::4]).astype(int) - source_frames).mean() < 8  # re-encoded, and the texture is noisy
    assert all(np.abs(frame.astype(int) - frames[32]).mean() < 5 for frame in frames[33:])  # the last frame is repeated


def test_a_variable_rate_puts_frames_between_their_neighbours(tmp_path):
    source_times = [0.0, 0.04, 0.1, 0.12, 0.3, 0.35, 0.36, 0.5]
    source = tmp_path / "a.mp4"
    write_video(source, source_times, codec="h264", size=(48, 64), start_time=0.5)
    for suffix, tick in ((".mp4", 1e-5), (".webm", 0.0011)):
        frames, times = read_frames(raise_rate(source, tmp_path / f"b{suffix}", 2))
        expected = np.interp(np.arange(15) / 2, np.arange(8), source_times)
        np.testing.assert_allclose([float(t) for t in times[:15]], expected, atol=tick)
        assert float(times[15]) == pytest.approx(0.57, abs=tick)  # the last two frames last equally long
        assert [read_time(frame) for frame in frames[::2]] == pytest.approx(source_times, abs=0.001)


def test_slow_motion_keeps_the_rate(tmp_path, clip):
    source = add_sound(clip, tmp_path / "a.mp4", "aac", 0.75)
    with pytest.warns(UserWarning, match="the sound is not copied: it would end before the slow motion"):
        target = raise_rate(source, tmp_path / "b.mp4", 4, slow_motion=True)
    frames, times = read_frames(target)
    assert times == [Fraction(k, 12) for k in range(36)]
    assert read_time(frames[8]) == pytest.approx(2 / 12, abs=0.001)
    assert not read_sound(target)


@pytest.mark.parametrize(("rotation", "ratio"), [(90, None), (180, None), (270, Fraction(4, 3)), (0, Fraction(3, 4))])
def test_the_target_is_upright_with_square_pixels(tmp_path, rotation, ratio):
    options = {"size": (48, 72), "rotation": rotation, "sample_aspect_ratio": ratio}
    write_video(tmp_path / "a.mp4", regular(5), codec="h264", **options)
    frames, _ = read_frames(raise_rate(tmp_path / "a.mp4", tmp_path / "b.mp4"))
    assert is_upright(frames[0])
    assert read_time(frames[2]) == pytest.approx(1 / 12, abs=0.001)
    height, width = frames[0].shape[:2]
    assert width / height == pytest.approx(72 / 48, abs=0.02)
    assert height >= 48
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)


def test_odd_sides_are_kept_if_the_format_supports_them(tmp_path):
    write_video(tmp_path / "a.mp4", regular(5), codec="h264", size=(49, 65))
    assert read_frames(raise_rate(tmp_path / "a.mp4", tmp_path / "b.webm"))[0][0].shape == (49, 65, 3)
    assert read_frames(raise_rate(tmp_path / "a.mp4", tmp_path / "b.mp4"))[0][0].shape == (50, 66, 3)


def test_a_cut_stays_a_cut(tmp_path, tiny_interpolator):
    options = {"scene_changes": [0.5], "clock": False, "moving": False}
    write_video(tmp_path / "a.mp4", regular(12), codec="h264", size=(48, 64), **options)
    frames, _ = read_frames(raise_rate(tmp_path / "a.mp4", tmp_path / "b.mp4", 4, interpolator=tiny_interpolator))
    for frame in frames[21:24]:
        assert np.abs(frame.astype(int) - frames[20]).mean() < 5  # repeated
    assert np.abs(frames[24].astype(int) - frames[23]).mean() > 25


@pytest.mark.parametrize(
    ("codec", "source", "target", "delay"),
    [
        ("aac", "a.mp4", "b.mp4", 0),
        ("aac", "a.mp4", "b.mp4", Fraction(1, 3)),
        ("libopus", "a.mkv", "b.webm", 0),
        ("libopus", "a.mkv", "b.mp4", Fraction(1, 4)),
        ("libmp3lame", "a.mkv", "b.mp4", 0),
        ("flac", "a.mkv", "b.mp4", 0),
    ],
)
def test_sound_is_copied_packet_by_packet_and_in_sync(tmp_path, clip, codec, source, target, delay):
    source = add_sound(clip, tmp_path / source, codec, 0.75, Fraction(delay))
    target = raise_rate(source, tmp_path / target)
    before, after = read_sound(source), read_sound(target)
    assert [packet for _, packet in after] == [packet for _, packet in before]
    (_, frames_before), (_, frames_after) = read_frames(source), read_frames(target)
    offsets = [float(frames_before[0] - before[3][0]), float(frames_after[0] - after[3][0])]
    assert offsets[1] == pytest.approx(offsets[0], abs=0.0015)  # Matroska counts in milliseconds
    with av.open(str(target)) as container:
        assert {key.lower(): value for key, value in container.metadata.items()}["title"] == "a tone"


def test_sound_that_the_format_does_not_support_is_reencoded(tmp_path, clip):
    source = add_sound(clip, tmp_path / "a.mp4", "aac", 0.75)
    with pytest.warns(UserWarning, match="a .webm file does not support aac sound: it is re-encoded as libopus"):
        target = raise_rate(source, tmp_path / "b.webm")
    with av.open(str(target)) as container:
        assert container.streams.audio[0].codec_context.name in ("opus", "libopus")
        frames = list(container.decode(audio=0))
    wave = np.concatenate([frame.to_ndarray().reshape(frame.layout.nb_channels, -1)[0] for frame in frames])
    assert len(wave) / 48_000 == pytest.approx(0.75, abs=0.05)
    spectrum = np.abs(np.fft.rfft(wave))
    assert np.argmax(spectrum) * 48_000 / len(wave) == pytest.approx(440, abs=3)
    assert float(frames[0].pts * frames[0].time_base) == pytest.approx(0, abs=0.01)


def test_a_gif_has_no_sound_and_its_own_times(tmp_path, clip):
    source = add_sound(clip, tmp_path / "a.mp4", "aac", 0.75)
    with pytest.warns(UserWarning, match="the sound is not copied: a .gif has none"):
        target = raise_rate(source, tmp_path / "b.gif", 4)
    frames, fps = read_video(target)
    assert (frames.shape, fps) == ((36, 48, 64, 3), pytest.approx(48, abs=0.1))
    with pytest.raises(
        ValueError, match=r"would have 96 frames a second, but a \.gif shows at most 50; write an \.mp4"
    ):
        Plan.from_file(clip, tmp_path / "c.gif", 8)


def test_subtitles_are_left_out_with_a_warning(tmp_path, clip):
    source = tmp_path / "a.mkv"
    with av.open(str(clip)) as original, av.open(str(source), "w") as container:
        video_stream = container.add_stream_from_template(original.streams.video[0])
        container.add_stream("ass")
        for packet in original.demux(video=0):
            if packet.dts is not None:
                packet.stream = video_stream
                container.mux(packet)
    with pytest.warns(UserWarning, match=r"not copied: stream 1 \(subtitle\)"):
        Plan.from_file(source, tmp_path / "b.mp4", 2)


def test_unusable_files_are_refused_before_anything_is_decoded(tmp_path):
    paths = {video.fault: video.path for video in make_corpus(tmp_path / "corpus", 14, len(FAULTS))}
    reasons = {
        "index lost": "not a readable video",
        "truncated": "truncated: it breaks off in frame 2[0-9]",
        "zero bytes": "the file is empty",
        "audio only": "it has no video stream, only audio",
        "not a video": "not a readable video",
        "missing file": "the file does not exist",
    }
    for fault, reason in reasons.items():
        with pytest.raises(ValueError, match=f"{paths[fault]}: {reason}"):
            Plan.from_file(paths[fault], tmp_path / "b.mp4", 2)
    Image.new("RGB", (64, 48)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="it has a single frame; at least two are needed"):
        Plan.from_file(tmp_path / "one.png", tmp_path / "b.mp4", 2)
    with pytest.raises(ValueError, match="is a folder"):
        Plan.from_file(tmp_path, tmp_path / "b.mp4", 2)
    assert not (tmp_path / "b.mp4").exists()


def test_the_input_is_not_overwritten(tmp_path, clip):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes())
    (tmp_path / "link.mp4").symlink_to(path)
    for target in (path, tmp_path / "link.mp4", tmp_path / "sub" / ".." / "a.mp4"):
        with pytest.raises(ValueError, match="is the input itself"):
            Plan.from_file(path, target, 2)
    with pytest.raises(ValueError, match=r"must end in one of \.mp4, \.webm, \.gif"):
        Plan.from_file(path, tmp_path / "b.mov", 2)


def test_a_size_other_than_the_models_gives_a_warning(tmp_path, clip, tiny_interpolator):
    with pytest.warns(
        UserWarning, match=r"trained on frames of 16x16; those of the video are 64x48 \(width x height\)"
    ):
        raise_rate(clip, tmp_path / "b.mp4", 4, interpolator=tiny_interpolator)


@pytest.mark.parametrize("stop_at", [1, 9])
def test_an_interruption_leaves_nothing(tmp_path, clip, stop_at):
    source = add_sound(clip, tmp_path / "a.mp4", "aac", 0.75)

    def stop(done: int, total: int) -> None:
        assert total == 9
        if done == stop_at:
            raise KeyboardInterrupt

    target = tmp_path / "out" / "b.mp4"
    with pytest.raises(KeyboardInterrupt):
        raise_rate(source, target, on_progress=stop)
    assert list(target.parent.iterdir()) == []


def test_damage_found_while_decoding_leaves_nothing(tmp_path):
    source = tmp_path / "a.avi"
    write_video(source, regular(12), codec="mpeg4", size=(48, 64))
    content = bytearray(source.read_bytes())
    begin = content.index(b"movi") + len(content) // 3
    content[begin : begin + 2000] = bytes(2000)
    source.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"a\.avi: (damaged|truncated|none of its frames)"):
        raise_rate(source, tmp_path / "out" / "b.mp4")
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_counts_the_frames_of_the_source(tmp_path, clip):
    calls: list[Sequence[int]] = []
    raise_rate(clip, tmp_path / "b.mp4", on_progress=lambda *progress: calls.append(progress))
    assert calls == [(k, 9) for k in range(1, 10)]
