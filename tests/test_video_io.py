import json
import os
import re
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from videogen_jax import video_io


def moving_disc(count=16, height=64, width=64):
    """A red disc crossing a smooth gradient: uint8 (count, height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    background = np.stack([x * 180 / width, y * 180 / height, (x + y) * 90 / (height + width)], -1)
    frames = np.stack([background] * count)
    for index, frame in enumerate(frames):
        centre = width * (0.2 + 0.6 * index / count)
        frame[np.hypot(x - centre, y - height / 2) < 0.2 * height] = (230, 50, 50)
    return frames.astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2))


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
@pytest.mark.parametrize(("count", "fps"), [(16, 8), (16, 7.5), (31, 15.5)])
def test_video_round_trip(tmp_path, suffix, count, fps):
    frames = moving_disc(count)
    path = tmp_path / "deep" / f"video{suffix}"
    video_io.write_video(path, frames, fps)
    read, read_fps = video_io.read_video(path)
    assert read.dtype == np.uint8
    assert read.shape == frames.shape
    assert read_fps == fps
    assert psnr(read, frames) > 30
    # No colour shift: a wrong matrix or range shifts uniform regions by more than 5 levels.
    assert np.abs(read.mean((0, 1, 2)) - frames.mean((0, 1, 2))).max() < 2.5
    assert names_in(path.parent) == [path.name]


@pytest.mark.parametrize("fps", [30000 / 1001, 29.97, 24, 60])
def test_frame_rate_is_exact_in_an_mp4(tmp_path, fps):
    video_io.write_video(tmp_path / "a.mp4", moving_disc(5), fps)
    assert video_io.read_video(tmp_path / "a.mp4")[1] == fps


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
@pytest.mark.parametrize("count", [1, 12])
def test_all_frames_of_a_still_video_are_stored(tmp_path, suffix, count):
    frames = np.repeat(moving_disc(1), count, axis=0)
    video_io.write_video(tmp_path / f"a{suffix}", frames, 8)
    read, fps = video_io.read_video(tmp_path / f"a{suffix}")
    assert len(read) == count
    assert fps == 8


def test_odd_sides_are_padded_in_an_mp4_and_kept_elsewhere(tmp_path):
    frames = moving_disc(4, 33, 47)
    for suffix, shape in ((".mp4", (34, 48)), (".webm", (33, 47)), (".gif", (33, 47))):
        video_io.write_video(tmp_path / f"a{suffix}", frames, 8)
        read, _ = video_io.read_video(tmp_path / f"a{suffix}")
        assert read.shape == (4, *shape, 3)
        assert psnr(read[:, :33, :47], frames) > 28
    mp4, _ = video_io.read_video(tmp_path / "a.mp4")
    assert np.abs(mp4[:, 33].astype(int) - mp4[:, 32]).mean() < 6


def test_an_mp4_plays_anywhere(tmp_path):
    video_io.write_video(tmp_path / "a.mp4", moving_disc(), 8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.colorspace) == ("h264", "yuv420p", 1)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_gif_loops_and_does_not_flicker(tmp_path):
    frames = moving_disc()
    video_io.write_video(tmp_path / "a.gif", frames, 7.5)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0
        durations = []
        for index in range(image.n_frames):
            image.seek(index)
            durations.append(image.info["duration"])
    # Durations are hundredths of a second, 13.33 on average; rounding errors do not accumulate.
    assert set(durations) == {130, 140}
    assert sum(durations[:15]) == 2000
    read, _ = video_io.read_video(tmp_path / "a.gif")
    still = (frames == frames[0]).all((0, 3))
    assert still.any()
    assert (read[:, still] == read[0][still]).all()


def test_frames_in_chunks_give_the_same_file(tmp_path):
    frames = moving_disc(11)
    for suffix in video_io.SUFFIXES:
        video_io.write_video(tmp_path / f"whole{suffix}", frames, 8)
        with video_io.VideoWriter(tmp_path / f"parts{suffix}", 8, frames.shape[1:3]) as writer:
            writer.append(frames[:4])
            writer.append(frames[4])
            writer.append(frames[5:])
    for suffix in (".mp4", ".gif", ".png"):
        assert (tmp_path / f"parts{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    # A .webm contains a random identifier.
    parts, whole = (video_io.read_video(tmp_path / f"{name}.webm")[0] for name in ("parts", "whole"))
    np.testing.assert_array_equal(parts, whole)


def test_buffered_frames_are_copies(tmp_path):
    frames = moving_disc(2)
    with video_io.VideoWriter(tmp_path / "a.png", 8, frames.shape[1:3]) as writer:
        buffer = frames.copy()
        writer.append(buffer)
        buffer[:] = 0
    np.testing.assert_array_equal(video_io.read_image(tmp_path / "a.png"), video_io.contact_sheet(frames))


@pytest.mark.parametrize("suffix", video_io.SUFFIXES)
def test_metadata(tmp_path, suffix):
    texts = {"title": "a small red circle, déjà vu " * 20, "seed": "7"}
    path = tmp_path / f"a{suffix}"
    video_io.write_video(path, moving_disc(3), 8, metadata=texts)
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.text == texts
    elif suffix == ".gif":
        with Image.open(path) as image:
            assert json.loads(image.info["comment"]) == texts
        assert len(video_io.read_video(path)[0]) == 3
    else:
        with av.open(str(path)) as container:
            stored = {key.lower(): text for key, text in container.metadata.items()}
        assert stored["seed"] == "7"
        assert stored["title"] == texts["title"]


@pytest.mark.parametrize("suffix", video_io.SUFFIXES)
@pytest.mark.parametrize("existing", [None, b"precious"])
def test_an_error_midway_changes_nothing(tmp_path, suffix, existing):
    path = tmp_path / f"a{suffix}"
    if existing:
        path.write_bytes(existing)

    def interrupted():
        with video_io.VideoWriter(path, 8, (64, 64)) as writer:
            writer.append(moving_disc(3))
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        interrupted()
    assert names_in(tmp_path) == ([path.name] if existing else [])
    if existing:
        assert path.read_bytes() == existing


def test_an_error_at_the_end_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")

    def full_disk(source, target):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="disk full"):
            video_io.write_video(path, moving_disc(3), 8)
        with pytest.raises(OSError, match="disk full"):
            video_io.write_image(tmp_path / "a.png", moving_disc(1)[0])
    assert names_in(tmp_path) == ["a.mp4"]
    assert path.read_bytes() == b"precious"


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.mp4 has no frames"), video_io.VideoWriter(tmp_path / "a.mp4", 8, (8, 8)):
        pass
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("frames", "fps", "name", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), 8, "a.mp4", r"(T, H, W, 3) uint8, but are (2, 8, 8, 3) float32"),
        (np.zeros((2, 3, 8, 8), np.uint8), 8, "a.mp4", r"(T, H, W, 3) uint8, but are (2, 3, 8, 8) uint8"),
        (np.zeros((0, 8, 8, 3), np.uint8), 8, "a.mp4", r"but are (0, 8, 8, 3)"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0, "a.mp4", "fps is 0, but must be a positive number"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), "a.mp4", "fps is nan, but must be a positive number"),
        (np.zeros((2, 8, 8, 3), np.uint8), 1e-9, "a.mp4", "fps is 1e-09, but must be at least 1/1001"),
        (np.zeros((2, 8, 8, 3), np.uint8), 60, "a.gif", "a .gif shows at most 50 frames a second"),
        (np.zeros((2, 8, 8, 3), np.uint8), 8, "a.avi", "a.avi must end in one of .mp4, .webm, .gif, .png"),
        (np.zeros((2, 8, 8, 3), np.uint8), 8, "a", "a must end in one of .mp4, .webm, .gif, .png"),
    ],
)
def test_bad_videos(tmp_path, frames, fps, name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        video_io.write_video(tmp_path / name, frames, fps)
    assert names_in(tmp_path) == []


def test_bad_sizes(tmp_path):
    with pytest.raises(ValueError, match=r"size is \(0, 8\)"):
        video_io.VideoWriter(tmp_path / "a.mp4", 8, (0, 8))

    def another_size():
        with video_io.VideoWriter(tmp_path / "a.mp4", 8, (64, 32)) as writer:
            writer.append(moving_disc(2))

    with pytest.raises(ValueError, match="frames are 64x64, but the video is 64x32"):
        another_size()
    assert names_in(tmp_path) == []


def test_unreadable_videos(tmp_path):
    with pytest.raises(ValueError, match=r"a\.mp4 does not exist"):
        video_io.read_video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="is a folder, but a file is to be read"):
        video_io.read_video(tmp_path)
    (tmp_path / "a.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"a\.mp4 is not a video that can be read"):
        video_io.read_video(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.mp4 is not a video that can be read"):
        video_io.read_video(tmp_path / "a.mp4")


def test_contact_sheet():
    frames = moving_disc(5, 4, 6)
    sheet = video_io.contact_sheet(frames, columns=3, border=1)
    assert sheet.shape == (1 + 2 * 5, 1 + 3 * 7, 3)
    np.testing.assert_array_equal(sheet[1:5, 1:7], frames[0])
    np.testing.assert_array_equal(sheet[1:5, 15:21], frames[2])
    np.testing.assert_array_equal(sheet[6:10, 8:14], frames[4])
    assert (sheet[6:, 15:] == 255).all()
    assert (sheet[[0, 5, 10]] == 255).all()
    assert video_io.contact_sheet(frames[:2], border=0).shape == (4, 12, 3)
    with pytest.raises(ValueError, match="columns is 0"):
        video_io.contact_sheet(frames, columns=0)


@pytest.mark.parametrize(("suffix", "least"), [(".png", np.inf), (".jpg", 30), (".webp", 30)])
def test_image_round_trip(tmp_path, suffix, least):
    image = moving_disc(1)[0]
    path = tmp_path / "new" / f"a{suffix}"
    video_io.write_image(path, image)
    read = video_io.read_image(path)
    if least == np.inf:
        np.testing.assert_array_equal(read, image)
    else:
        assert psnr(read, image) > least
    assert names_in(path.parent) == [path.name]


def test_bad_image_to_write(tmp_path):
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8, but is \(4, 4\) float64"):
        video_io.write_image(tmp_path / "a.png", np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"a\.mp4 must end in one of \.png, \.jpg"):
        video_io.write_image(tmp_path / "a.mp4", np.zeros((4, 4, 3), np.uint8))


def test_centre_crop_and_resize(tmp_path):
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, :20] = image[:, 60:] = (255, 0, 0)
    image[:20, 20:60] = (0, 200, 0)
    image[20:, 20:60] = (0, 0, 200)
    video_io.write_image(tmp_path / "a.png", image)
    read = video_io.read_image(tmp_path / "a.png", resolution=16)
    assert read.shape == (16, 16, 3)
    # The red sides are cropped off; the filter rings by a few levels where green meets blue.
    assert read[..., 0].max() == 0
    assert np.abs(read[:5].astype(int) - (0, 200, 0)).max() <= 4
    assert np.abs(read[11:].astype(int) - (0, 0, 200)).max() <= 4
    assert video_io.read_image(tmp_path / "a.png", resolution=100).shape == (100, 100, 3)
    with pytest.raises(ValueError, match="resolution is 0"):
        video_io.read_image(tmp_path / "a.png", resolution=0)


def test_resizing_is_antialiased(tmp_path):
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checkers).save(tmp_path / "a.png")
    read = video_io.read_image(tmp_path / "a.png", resolution=8)
    assert np.abs(read.astype(int) - 127).max() <= 6


def test_exif_orientation(tmp_path):
    image = moving_disc(1, 20, 30)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed rotated a quarter clockwise
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(video_io.read_image(tmp_path / "a.png"), np.rot90(image, -1))


def test_transparency_is_over_white(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0] = (200, 100, 0, 255)
    rgba[1, 0] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    read = video_io.read_image(tmp_path / "a.png")
    assert (read[0] == (200, 100, 0)).all()
    assert (read[1, 0] == 127).all()
    assert (read[1, 1:] == 255).all()

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "b.png", transparency=0)
    np.testing.assert_array_equal(video_io.read_image(tmp_path / "b.png"), [[[255, 255, 255], [40, 50, 60]]])


def test_other_modes(tmp_path):
    Image.fromarray(np.full((3, 3), 51400, np.uint16)).save(tmp_path / "deep.png")
    assert (video_io.read_image(tmp_path / "deep.png") == 200).all()
    Image.new("L", (3, 3), 77).save(tmp_path / "gray.png")
    assert (video_io.read_image(tmp_path / "gray.png") == 77).all()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert np.abs(video_io.read_image(tmp_path / "cmyk.jpg").astype(int) - (255, 0, 0)).max() <= 2


def test_unreadable_images(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"a\.png does not exist"):
        video_io.read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("a letter")
    with pytest.raises(ValueError, match=r"a\.png is not an image that can be read"):
        video_io.read_image(tmp_path / "a.png")
    video_io.write_image(tmp_path / "a.png", moving_disc(1)[0])
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.png is not an image that can be read"):
        video_io.read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(whole)
    monkeypatch.setattr(video_io, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"a\.png is 64x64; at most 1,000 pixels are read"):
        video_io.read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"a\.png is too large"):
        video_io.read_image(tmp_path / "a.png")


def test_check_writable(tmp_path):
    video_io.check_writable(tmp_path / "new" / "deeper" / "a.MP4")
    assert (tmp_path / "new" / "deeper").is_dir()
    assert names_in(tmp_path / "new" / "deeper") == []
    with pytest.raises(ValueError, match=r"a\.mov must end in one of \.mp4, \.webm, \.gif, \.png"):
        video_io.check_writable(tmp_path / "a.mov")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be written: "):
        video_io.check_writable(tmp_path / "file" / "a.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ValueError, match=r"folder\.mp4 is a folder, but a file is to be written"):
        video_io.check_writable(tmp_path / "folder.mp4")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot be written: Permission denied"):
        video_io.check_writable(tmp_path / "a.mp4")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(("suffix", "tick"), [(".mp4", 1e-5), (".webm", 0.0006), (".gif", 0.0051)])
def test_uneven_frame_times(tmp_path, suffix, tick):
    times = [Fraction(0), Fraction(1, 25), Fraction(1, 3), Fraction(1, 2), Fraction(3, 5)]
    frames = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    with video_io.VideoWriter(tmp_path / f"a{suffix}", 10, (32, 32), tick=Fraction(1, 90_000)) as writer:
        writer.append(frames[:2], times[:2])
        writer.append(frames[2:5], times[2:])
        writer.append(frames[5])  # 1 / fps later
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        stored = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert stored == pytest.approx([*map(float, times), 0.7], abs=tick)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize(
    "times", [[Fraction(1), Fraction(1)], [Fraction(1), Fraction(1, 2)], [Fraction(-1), Fraction(0)]]
)
def test_times_must_increase(tmp_path, suffix, times):
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    with (
        pytest.raises(ValueError, match="but times must increase from 0"),
        video_io.VideoWriter(tmp_path / f"a{suffix}", 10, (32, 32)) as writer,
    ):
        writer.append(frames, times)
    assert list(tmp_path.iterdir()) == []
