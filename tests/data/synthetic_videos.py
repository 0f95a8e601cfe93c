"""Synthetic videos, good and faulty, whose frames encode their time and orientation.

The central square of every image has a barcode of the time, and marks in three corners (red top left, green top right,
blue bottom right), on a moving texture. The output of a loader can thus be checked from its pixels alone:

    from tests.data.synthetic_videos import is_upright, make_corpus, read_time

    for video in make_corpus(tmp_path):
        if video.fault is None:
            frames, times = load(video.path, resolution=64)
            assert all(is_upright(frame) for frame in frames)
            assert [read_time(frame) for frame in frames] == pytest.approx(times, abs=1e-3)
"""

import functools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

RATES = {"24": Fraction(24), "29.97": Fraction(30000, 1001), "60": Fraction(60), "variable": None}
# The codec, suffix and frame rate of a video of the corpus. An .avi has no variable rate.
FORMS = [
    (codec, suffix, rate)
    for rate in RATES
    for codec, suffix in (("h264", ".mp4"), ("vp9", ".webm"), ("mpeg4", ".avi"), ("mpeg4", ".mp4"))
    if (suffix, rate) != (".avi", "variable")
]
FAULTS = (
    "index lost",  # an .mp4 truncated before its index, which is at its end: nothing can be read
    "truncated",  # an .mp4 with its index in front and half its data: it opens, and decoding fails half way
    "zero bytes",
    "audio only",
    "not a video",  # text named .mp4
    "too short",  # 0.2 s
    "one picture",  # a PNG named .mp4, which decodes as one frame; SyntheticVideo.fault is "too short"
    "empty caption",
    "blank caption",  # spaces and a tab
    "wrong encoding",  # a caption in Latin-1, not UTF-8; the video is good
    "duplicate id",  # a row with the id, and so the file, of an earlier good one, and another caption
    "missing file",
)

# The layout of an image, in fractions of the side of the central square. The barcode is off-centre, so that it is not
# found in a mirrored or rotated image.
MARK = 0.2
BARCODE_LEFT, BARCODE_RIGHT = 0.05, 0.89
BARCODE_TOP, BARCODE_BOTTOM = 0.24, 0.68
COLUMNS = 7
ROWS = 3  # two of time, one of check bits
MAX_TIME = (2 ** (2 * COLUMNS) - 1) / 1000  # seconds
# The texture moves by these fractions of the short side in a second.
SPEED_RIGHT, SPEED_DOWN = 0.25, 0.1

_MARKS = (  # top, left, channel
    (0.0, 0.0, 0),
    (0.0, 1.0 - MARK, 1),
    (1.0 - MARK, 1.0 - MARK, 2),
)
_ENCODERS = {
    "h264": ("libx264", {"preset": "ultrafast", "crf": "20"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "crf": "24", "b": "0"}),
    "mpeg4": ("mpeg4", {"b": "2000000"}),
}
_SIZES = ((96, 128), (112, 200), (129, 171), (144, 176), (128, 96), (120, 160), (171, 129), (99, 131))
_ASPECT_SIZE = (96, 144)  # size of the videos with non-square pixels
_CAPTIONS = (
    "A small boat crosses the harbour at dawn",
    'Woman says "hello", waves, and leaves',
    "Fahrrad fährt über die Brücke",
    "Time lapse of clouds, mountains and a lake",
    "夜の東京の街",
    "Close up of coffee beans falling; slow motion",
    "The dog's ball rolls away 🐕",
    "Aerial view of a forest in autumn",
    '"Quoted" from the first letter',
)


@dataclass(frozen=True)
class SyntheticVideo:
    """One row of a corpus, and the properties of its file.

    Attributes:
      id: unique, unless the fault is "duplicate id".
      path: path of the file, which does not exist if the fault is "missing file".
      caption: the bytes in the caption file, without CSV's quotes.
      codec: "h264", "vp9" or "mpeg4"; "png" for an image, "" without images.
      rate: a key of RATES; "" if the file is not a video.
      size: (height, width) as displayed: upright, with square pixels.
      rotation: 0, 90, 180 or 270 degrees counter-clockwise, by which the coded images are rotated to be upright:
        `np.rot90(coded, rotation // 90)`.
      times: display time of each frame, in seconds since the first; for a truncated file, those of the complete one.
      fault: None for a good video, or one of FAULTS.
      sample_aspect_ratio: width of a coded pixel divided by its height.
      start_time: the time stamp of the first frame in seconds.
    """

    id: str
    path: Path
    caption: bytes
    codec: str
    rate: str
    size: tuple[int, int]
    rotation: int
    times: tuple[float, ...]
    fault: str | None
    sample_aspect_ratio: Fraction = Fraction(1)
    start_time: float = 0.0


def draw(
    time: float,
    size: tuple[int, int],
    *,
    scene_changes: Sequence[float] = (),
    moving: bool = True,
    clock: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """Draw the image at a time, as displayed: uint8 (H, W, 3).

    Args:
      time: seconds since the first frame, from 0 to MAX_TIME; the barcode holds it in milliseconds.
      size: (height, width).
      scene_changes: times at which the texture changes, from light to dark or from dark to light.
      moving: whether the texture moves, at SPEED_RIGHT and SPEED_DOWN. The barcode changes anyway.
      clock: whether there is a barcode; without it, and without motion, all images of a scene are the same.
      seed: seed of the textures.
    """
    if not 0 <= time <= MAX_TIME:
        raise ValueError(f"time is {time}, but must be from 0 to {MAX_TIME} seconds")
    height, width = size
    side = min(size)
    scene = sum(change <= time for change in scene_changes)
    down, right = (round(time * side * speed) if moving else 0 for speed in (SPEED_DOWN, SPEED_RIGHT))
    top, left = -down % height, -right % width
    picture = _tiled_texture(height, width, seed, scene)[top : top + height, left : left + width].copy()
    square = _central_square(picture)
    for mark_top, mark_left, channel in _MARKS:
        mark = square[_pixels(mark_top, mark_top + MARK, side), _pixels(mark_left, mark_left + MARK, side)]
        mark[:] = 0
        mark[..., channel] = 255
    if clock:
        rows = _pixels(BARCODE_TOP, BARCODE_BOTTOM, side)
        columns = _pixels(BARCODE_LEFT, BARCODE_RIGHT, side)
        square[rows, columns] = (_barcode(round(1000 * time)) * np.uint8(255))[_block_of_pixel(side)][..., None]
    return picture


def read_time(frame: np.ndarray) -> float | None:
    """Read the time in seconds from the barcode of a frame uint8 (H, W, 3).

    The frame is an upright image or its central square, of at least 32x32 pixels. The result is None if the image is
    rotated, mirrored, cropped otherwise, or a blend of two. A slightly squeezed image can be read; see `is_upright`.
    """
    square = _central_square(frame)
    height, width = (BARCODE_BOTTOM - BARCODE_TOP) / ROWS, (BARCODE_RIGHT - BARCODE_LEFT) / COLUMNS
    levels = np.empty(ROWS * COLUMNS)
    for block in range(ROWS * COLUMNS):
        top = BARCODE_TOP + block // COLUMNS * height
        left = BARCODE_LEFT + block % COLUMNS * width
        levels[block] = _inner_part(square, top, left, height, width).mean()
    bits = levels > 127.5
    if np.any((levels > 80) & (levels < 175)):
        return None
    milliseconds = int(bits[: 2 * COLUMNS] @ 2 ** np.arange(2 * COLUMNS)[::-1])
    return milliseconds / 1000 if np.array_equal(bits, _barcode(milliseconds)) else None


def is_upright(frame: np.ndarray) -> bool:
    """Return whether the three marks are in their corners of a frame uint8 (H, W, 3), an image or its central square.

    They are not if the image is rotated, mirrored, cropped otherwise, or squeezed or stretched by a quarter.
    """
    square = _central_square(frame)
    for top, left, channel in _MARKS:
        mark = _inner_part(square, top, left, MARK, MARK).astype(int)
        if (mark[..., channel] - np.delete(mark, channel, -1).max(-1)).min() < 80:
            return False
    return True


def write_video(
    path: Path,
    times: Sequence[float],
    *,
    codec: str,
    size: tuple[int, int],
    rotation: int = 0,
    sample_aspect_ratio: Fraction | None = None,
    scene_changes: Sequence[float] = (),
    moving: bool = True,
    clock: bool = True,
    start_time: float = 0.0,
    gop: int = 12,
    b_frames: int = 0,
    faststart: bool = False,
    seed: int = 0,
) -> None:
    """Write a video of the images that `draw` returns.

    Time stamps are exact to 1/30000 s in an .mp4 and to 1/1000 s in a .webm. Odd sides are kept, in an H.264 .mp4 by
    coding in 4:4:4.

    Args:
      path: ends in .mp4, .webm (VP9) or .avi (MPEG-4).
      times: display time of each frame, in seconds, increasing, from 0.
      codec: "h264", "vp9" or "mpeg4".
      size: (height, width) as displayed.
      rotation: 0, 90, 180 or 270, see `SyntheticVideo.rotation`.
      sample_aspect_ratio: width of a coded pixel divided by its height; None: square, and not stated in the file.
      scene_changes, moving, clock, seed: see `draw`.
      start_time: added to the time stamps, not to the times in the images.
      gop: maximum number of frames from one key frame to the next.
      b_frames: maximum number of consecutive B-frames; not for VP9.
      faststart: whether an .mp4 has its index in front.

    Raises:
      ValueError: the format does not support these settings.
    """
    path, rate = Path(path), _mean_rate(times)
    ratio = sample_aspect_ratio or Fraction(1)
    height, width = size if rotation % 180 == 0 else size[::-1]
    if width % ratio:
        raise ValueError(f"a width of {width} is not a whole number of pixels {ratio} wide")
    width = int(width / ratio)
    if path.suffix == ".avi":
        if rotation or start_time or b_frames:
            raise ValueError("an .avi has no rotation and no start time, and its time stamps allow no B frames")
        if not np.allclose(times, np.arange(len(times)) / float(rate), rtol=0, atol=1e-4):
            raise ValueError("an .avi has a constant rate")
    if path.suffix == ".webm" and ratio != 1:
        raise ValueError("PyAV does not write the shape of the pixels into a .webm")
    time_base = {".mp4": Fraction(1, 30000), ".webm": Fraction(1, 1000), ".avi": 1 / rate}[path.suffix]

    encoder, options = _ENCODERS[codec]
    flags = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream(encoder, rate=rate, options=options)
        context = stream.codec_context
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv444p" if codec == "h264" and (height % 2 or width % 2) else "yuv420p"
        stream.time_base = context.time_base = time_base
        context.gop_size, context.max_b_frames, context.thread_count = gop, b_frames, 1
        if sample_aspect_ratio:
            context.sample_aspect_ratio = sample_aspect_ratio
        if rotation:
            stream.set_display_rotation(rotation)
        for time in times:
            picture = draw(time, size, scene_changes=scene_changes, moving=moving, clock=clock, seed=seed)
            picture = np.ascontiguousarray(np.rot90(picture, -rotation // 90))
            if ratio != 1:
                picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round((start_time + time) / float(time_base)), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_corpus(folder: Path, count: int = 200, faulty: int = 20, seed: int = 0) -> list[SyntheticVideo]:
    """Write videos and captions in WebVid's layout, and return the rows in the order of the caption file.

    folder/captions.csv has the columns videoid, page_dir and name; folder/videos/ holds the files, named by their ids,
    so every page_dir is empty. The good ones cycle through FORMS, sizes (including odd ones), rotations, pixel aspect
    ratios and start times, as far as their format supports these.

    Args:
      folder: a new folder.
      count: number of rows, including the faulty ones.
      faulty: number of rows with a fault, which cycle through FAULTS; 0, or at least one per fault.
      seed: seed of the order and the times.
    """
    if not (faulty == 0 < count or len(FAULTS) <= faulty < count):
        raise ValueError(f"faulty is {faulty}, but must be 0 or from {len(FAULTS)} to below count, {count}")
    folder, rng = Path(folder), np.random.default_rng(seed)
    (folder / "videos").mkdir(parents=True)
    faults = [FAULTS[index % len(FAULTS)] for index in range(faulty)] + [None] * (count - faulty - 1)
    faults = [None, *rng.permutation(np.array(faults, object))]  # a duplicate needs a good one before it
    videos, whole = [], 0
    for row, fault in enumerate(faults):
        path = folder / "videos" / str(1_000_003 + 7919 * row)
        caption = f"{_CAPTIONS[row % len(_CAPTIONS)]} {row}".encode()
        if fault == "duplicate id":
            good = [video for video in videos if video.fault is None]
            video = replace(good[rng.integers(len(good))], caption=caption)
        elif fault in (None, "empty caption", "blank caption", "wrong encoding"):
            video = _write_good(path, whole, rng)
            whole += 1
            bad_captions = {
                "empty caption": b"",
                "blank caption": b"  \t ",
                "wrong encoding": "Café à Orléans".encode("latin-1"),
            }
            video = replace(video, caption=bad_captions.get(fault, caption))
        else:
            video = replace(_write_faulty(path.with_suffix(".mp4"), fault, row), caption=caption)
        videos.append(replace(video, fault="too short" if fault == "one picture" else fault))
    rows = [b"videoid,page_dir,name", *(b"%s,,%s" % (video.id.encode(), _csv_field(video.caption)) for video in videos)]
    (folder / "captions.csv").write_bytes(b"\n".join(rows) + b"\n")
    return videos


def _write_good(path: Path, index: int, rng: np.random.Generator) -> SyntheticVideo:
    """Write good video number `index`, without a caption; adds the suffix to the path."""
    # The cycle lengths have no common divisor, so that all pairs occur.
    codec, suffix, rate = FORMS[index % len(FORMS)]
    size = _SIZES[index % 8]
    rotation = (0, 90, 0, 270, 0, 180, 0)[index % 7] if suffix != ".avi" else 0
    ratio = {4: Fraction(4, 3), 8: Fraction(3, 4)}.get(index % 11) if suffix != ".webm" else None
    start_time = {1: 0.5, 6: 1.234}.get(index % 13, 0.0) if suffix != ".avi" else 0.0
    if ratio:
        size = _ASPECT_SIZE
    if rotation % 180:
        size = (max(size), min(size))

    duration = rng.uniform(1.5, 3.0)
    if rate == "variable":
        times = np.cumsum([0, *rng.integers(15, 71, 200)]) / 1000
    else:
        times = np.arange(180) / float(RATES[rate])
    times = tuple(times[times < duration].tolist())
    path = path.with_suffix(suffix)
    write_video(
        path,
        times,
        codec=codec,
        size=size,
        rotation=rotation,
        sample_aspect_ratio=ratio,
        start_time=start_time,
        b_frames=2 if codec == "h264" and index % 2 else 0,
        faststart=suffix == ".mp4" and index % 3 == 0,
        seed=index,
    )
    return SyntheticVideo(
        path.stem, path, b"", codec, rate, size, rotation, times, None, ratio or Fraction(1), start_time
    )


def _write_faulty(path: Path, fault: str, seed: int) -> SyntheticVideo:
    """Write an .mp4 with a fault in the file, without a caption."""
    size = (96, 128)
    times = tuple(number / 24 for number in range(5 if fault == "too short" else 48))
    video = SyntheticVideo(path.stem, path, b"", "h264", "24", size, 0, times, fault)
    if fault in ("index lost", "truncated", "too short"):
        write_video(path, times, codec="h264", size=size, faststart=fault == "truncated", seed=seed)
        whole = path.read_bytes()
        if fault == "index lost":
            path.write_bytes(whole[: whole.index(b"moov") - 4])
        elif fault == "truncated":
            path.write_bytes(whole[: (whole.index(b"mdat") + len(whole)) // 2])
        return video
    if fault == "one picture":
        Image.fromarray(draw(0.0, size, seed=seed)).save(path, format="png")
        return replace(video, codec="png", rate="", times=(0.0,))
    if fault == "zero bytes":
        path.write_bytes(b"")
    elif fault == "audio only":
        _write_tone(path)
    elif fault == "not a video":
        path.write_text("This is a letter, not a video.\n" * 100)
    return replace(video, codec="", rate="", size=(0, 0), times=())


def _write_tone(path: Path, seconds: float = 2.0, rate: int = 16000) -> None:
    """Write a tone of 440 Hz in AAC, without images."""
    wave = 0.3 * np.sin(2 * np.pi * 440 / rate * np.arange(int(seconds * rate), dtype=np.float32))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        sound = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = rate, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


def _csv_field(text: bytes) -> bytes:
    if any(mark in text for mark in b',"\n'):
        return b'"' + text.replace(b'"', b'""') + b'"'
    return text


def _mean_rate(times: Sequence[float]) -> Fraction:
    """Return the frames per second; 24 for a single frame."""
    if len(times) < 2:
        return Fraction(24)
    return Fraction((len(times) - 1) / (times[-1] - times[0])).limit_denominator(1001)


def _pixels(start: float, end: float, side: int) -> slice:
    """Return the pixels whose centres lie between two fractions of a side."""
    return slice(math.ceil(start * side - 0.5), math.ceil(end * side - 0.5))


def _central_square(picture: np.ndarray) -> np.ndarray:
    """Return a view of the central square of an image (H, W, 3)."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def _inner_part(square: np.ndarray, top: float, left: float, height: float, width: float) -> np.ndarray:
    """Return the inner half, in both directions, of a block of a square (S, S, 3), specified in fractions of a side."""
    rows = _pixels(top + height / 4, top + height * 3 / 4, len(square))
    columns = _pixels(left + width / 4, left + width * 3 / 4, len(square))
    return square[rows, columns]


def _barcode(milliseconds: int) -> np.ndarray:
    """Return the bits of a time and its check bits, the highest first: (ROWS * COLUMNS,)."""
    check = zlib.crc32(b"%d" % milliseconds)
    shifts = np.arange(2 * COLUMNS)[::-1]
    return np.concatenate([milliseconds >> shifts & 1, check >> shifts[COLUMNS:] & 1]).astype(bool)


@functools.lru_cache(maxsize=32)
def _block_of_pixel(side: int) -> np.ndarray:
    """Return the barcode block that each pixel of the barcode belongs to, in a square with this side."""
    rows, columns = _pixels(BARCODE_TOP, BARCODE_BOTTOM, side), _pixels(BARCODE_LEFT, BARCODE_RIGHT, side)
    y = (np.arange(rows.start, rows.stop) + 0.5) / side - BARCODE_TOP
    x = (np.arange(columns.start, columns.stop) + 0.5) / side - BARCODE_LEFT
    row = np.floor(y / (BARCODE_BOTTOM - BARCODE_TOP) * ROWS).astype(int).clip(0, ROWS - 1)
    column = np.floor(x / (BARCODE_RIGHT - BARCODE_LEFT) * COLUMNS).astype(int).clip(0, COLUMNS - 1)
    return row[:, None] * COLUMNS + column


@functools.lru_cache(maxsize=8)
def _tiled_texture(height: int, width: int, seed: int, scene: int) -> np.ndarray:
    """Return a smooth, seamless texture tiled two by two: uint8 (2 * height, 2 * width, 3)."""
    rng = np.random.default_rng((seed, scene))
    y, x = np.mgrid[:height, :width]
    waves = 0
    for _ in range(5):
        down, right = rng.integers(1, 6, 2) * rng.choice([-1, 1], 2)
        waves = waves + np.cos(2 * np.pi * (down * y / height + right * x / width + rng.uniform()))
    level = 80 if (seed + scene) % 2 else 175
    texture = level + 55 * waves[..., None] / np.abs(waves).max() + rng.uniform(-20, 20, 3)
    return np.tile(texture.clip(0, 255).astype(np.uint8), (2, 2, 1))
