"""Reading and writing videos (.mp4, .webm, .gif), contact sheets and images.

Frames are uint8 `(T, H, W, 3)`, sRGB. Every file is written under a temporary name in the same folder and moved into
place when it is complete, so an error or an interruption leaves no partial file and does not destroy an existing one.
"""

import contextlib
import json
import math
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import Image, ImageOps, PngImagePlugin

SUFFIXES = (".mp4", ".webm", ".gif", ".png")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# A reference image with more pixels than this is an attack or a mistake.
MAX_PIXELS = 100_000_000
MAX_GIF_FPS = 50
# Below this side in pixels, x264's macroblock tree is disabled: its assembly processes 16 macroblocks of 16 pixels at a
# time and reads uninitialized memory past the end of smaller frames, so that the same frames sometimes gave different
# files (one in six at 16 pixels, one in fifty at 64; none of 800 at 128, 256, 384; none with the assembly off).
_MIN_MBTREE_SIDE = 256
# Metadata keys that have a standard field in an mp4 file.
_MP4_KEYS = frozenset({"title", "artist", "comment", "description", "copyright", "date", "genre"})


class VideoWriter:
    """A writer that encodes frames as they arrive, for use in a `with` block; the file appears when the block ends.

    .mp4 (H.264) and .webm (VP9) are encoded in 4:2:0 with BT.709 colours. An odd side of an .mp4 is padded by repeating
    its last row or column, because the format requires even sides. The frames of a .gif or a .png (a contact sheet) are
    held in memory until the end. An error inside the block leaves no file behind.

    Args:
      path: ends in one of SUFFIXES; missing parent folders are created.
      fps: frames per second, e.g. 7.5, rounded to a fraction with a denominator of at most 1001. In a .gif each frame
        is displayed at the nearest hundredth of a second, at most MAX_GIF_FPS per second. Not used for .png.
      size: (height, width) of the frames in pixels.
      metadata: texts stored in the file, e.g. {"title": prompt}; in a .gif as one JSON comment.
      tick: time base in seconds, to which the times passed to `append` are rounded; None for 1 / fps. In addition a
        .webm rounds to milliseconds and a .gif to hundredths of a second.

    Attributes:
      container: the PyAV container inside the block, to which other streams can be added before the first frame; None
        for a .gif or .png.

    Raises:
      ValueError: the path cannot be written, fps or size are out of range, frames have another shape or dtype, times do
        not increase, or there are no frames.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        fps: float | Fraction,
        size: tuple[int, int],
        metadata: Mapping[str, str] | None = None,
        tick: Fraction | None = None,
    ):
        check_writable(path)
        self.path = Path(path)
        self.suffix = self.path.suffix.lower()
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps is {fps}, but must be a positive number of frames a second")
        if self.suffix == ".gif" and fps > MAX_GIF_FPS:
            raise ValueError(f"fps is {fps}, but a .gif shows at most {MAX_GIF_FPS} frames a second; write an .mp4")
        self.fps = Fraction(fps).limit_denominator(1001)
        if self.fps <= 0:
            raise ValueError(f"fps is {fps}, but must be at least 1/1001")
        self.size = (int(size[0]), int(size[1]))
        if min(self.size) < 1:
            raise ValueError(f"size is {self.size}, but must be (height, width) of at least one pixel each")
        self.metadata = dict(metadata or {})
        self.tick = 1 / self.fps if tick is None else tick
        self.container = None
        self._stamps: list[int] = []  # of all frames held in memory, or of the last frame encoded
        self._temporary = _temporary_path(self.path)
        self._frames: list[np.ndarray] = []
        self._stream = None

    def __enter__(self) -> Self:
        if self.suffix in (".mp4", ".webm"):
            try:
                self._open()
            except BaseException:
                self._clean_up()
                raise
        return self

    def append(self, frames: np.ndarray, times: Sequence[Fraction] | None = None) -> None:
        """Append frames; the last frame of the video is displayed for 1 / fps.

        Args:
          frames: uint8 `(N, H, W, 3)`, or one frame `(H, W, 3)`, of the writer's size.
          times: display time of each frame in seconds, increasing, from 0; None for 1 / fps after the previous frame.

        Raises:
          ValueError: see `VideoWriter`.
        """
        frames = np.asarray(frames)
        if frames.ndim == 3:
            frames = frames[None]
        _check_frames(frames)
        if frames.shape[1:3] != self.size:
            raise ValueError(
                f"frames are {frames.shape[1]}x{frames.shape[2]}, but the video is {self.size[0]}x{self.size[1]}"
            )
        for frame, time in zip(frames, [None] * len(frames) if times is None else times, strict=True):
            last = self._stamps[-1] if self._stamps else None
            step = round(1 / self.fps / self.tick)
            stamp = round(time / self.tick) if time is not None else 0 if last is None else last + step
            if stamp < 0 or (last is not None and stamp <= last):
                raise ValueError(f"a frame has the time {float(stamp * self.tick):g} s, but times must increase from 0")
            if self.suffix in (".gif", ".png"):
                self._frames.append(frame.copy())
                self._stamps.append(stamp)
            else:
                self._encode(frame, stamp, step)
                self._stamps = [stamp]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if not self._stamps:
                    raise ValueError(f"{self.path} has no frames: call append at least once")
                self._finish()
                os.replace(self._temporary, self.path)
        finally:
            self._clean_up()

    def _open(self) -> None:
        height, width = self.size
        if self.suffix == ".mp4":
            flags = "+faststart" if set(self.metadata) <= _MP4_KEYS else "+faststart+use_metadata_tags"
            self.container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": flags})
            codec, options = "libx264", {"crf": "16", "preset": "medium"}
            if min(height, width) < _MIN_MBTREE_SIDE:
                options["mbtree"] = "0"
            height, width = height + height % 2, width + width % 2
        else:
            self.container = av.open(str(self._temporary), "w", format="webm")
            codec, options = "libvpx-vp9", {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
        self.container.metadata.update(self.metadata)
        stream = self.container.add_stream(codec, rate=self.fps, options=options)
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = self.tick
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        self._stream = stream

    def _encode(self, frame: np.ndarray, stamp: int, duration: int) -> None:
        rows, columns = self._stream.height - frame.shape[0], self._stream.width - frame.shape[1]
        if rows or columns:
            frame = np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge")
        video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        video_frame.pts, video_frame.duration, video_frame.time_base = stamp, duration, self.tick
        self.container.mux(self._stream.encode(video_frame))

    def _finish(self) -> None:
        if self.suffix == ".png":
            _save_png(self._temporary, contact_sheet(np.stack(self._frames)), self.metadata)
        elif self.suffix == ".gif":
            times = [stamp * self.tick for stamp in self._stamps]
            _save_gif(self._temporary, np.stack(self._frames), self.fps, times, self.metadata)
        else:
            self.container.mux(self._stream.encode(None))
            self.container.close()

    def _clean_up(self) -> None:
        """Release the frames and the container, and remove the temporary file if it has not been moved into place."""
        self._frames.clear()
        if self.container is not None:
            # Closing writes the remaining packets, which may fail after an error.
            with contextlib.suppress(av.FFmpegError):
                self.container.close()
            self.container = self._stream = None
        self._temporary.unlink(missing_ok=True)


def write_video(
    path: str | os.PathLike, frames: np.ndarray, fps: float, metadata: Mapping[str, str] | None = None
) -> None:
    """Write frames uint8 `(T, H, W, 3)` in the format of the path's suffix; see `VideoWriter`."""
    frames = np.asarray(frames)
    _check_frames(frames)
    with VideoWriter(path, fps, frames.shape[1:3], metadata) as writer:
        writer.append(frames)


def read_video(path: str | os.PathLike) -> tuple[np.ndarray, float]:
    """Read a video.

    If the container does not state the frame rate, or has coarse time stamps (.gif: hundredths of a second), the rate
    is the simplest fraction that gives the duration to within one time stamp.

    Returns: frames uint8 `(T, H, W, 3)`, and frames per second.

    Raises:
      ValueError: the file does not exist or is not a readable video.
    """
    path = _existing_file(path)
    frames, end = [], 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate, tick = stream.average_rate, stream.time_base
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24"))
                if frame.pts is not None and frame.duration:
                    end = frame.pts + frame.duration
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is not a video that can be read ({error})") from error
    if not frames:
        raise ValueError(f"{path} is not a video that can be read (it has no frames)")
    if end and (not rate or abs(len(frames) / rate - end * tick) > tick or tick > Fraction(1, 1000)):
        rate = simplest_rate(len(frames), end, tick)
    if not rate:
        raise ValueError(f"{path} does not state its frame rate")
    return np.stack(frames), float(rate)


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Read the texts stored in a file, by `VideoWriter(metadata=...)` or by other programs.

    Raises:
      ValueError: the file does not exist or cannot be read.
    """
    path = _existing_file(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".png":
            with Image.open(path) as image:
                return {str(key): text for key, text in image.info.items() if isinstance(text, str)}
        if suffix == ".gif":
            with Image.open(path) as image:
                comment = image.info.get("comment", b"")
            try:
                texts = json.loads(comment)
            except ValueError:  # a comment by another program
                return {"comment": comment.decode(errors="replace")} if comment else {}
            return {str(key): str(text) for key, text in texts.items()} if isinstance(texts, dict) else {}
        with av.open(str(path)) as container:
            # Matroska stores keys in upper case.
            return {key.lower(): text for key, text in container.metadata.items()}
    except (av.FFmpegError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error


def contact_sheet(frames: np.ndarray, columns: int = 8, border: int = 2) -> np.ndarray:
    """Lay out frames row by row on white.

    Args:
      frames: uint8 `(T, H, W, 3)`.
      columns: maximum number of frames per row.
      border: width of the white border around each frame, in pixels.

    Returns: uint8 `(H', W', 3)`.

    Raises:
      ValueError: the frames have another shape or dtype, or columns or border are out of range.
    """
    frames = np.asarray(frames)
    _check_frames(frames)
    if columns < 1 or border < 0:
        raise ValueError(f"columns is {columns} and border {border}, but at least 1 column and 0 pixels are needed")
    count, height, width, _ = frames.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((border + rows * (height + border), border + columns * (width + border), 3), 255, np.uint8)
    for index, frame in enumerate(frames):
        top = border + index // columns * (height + border)
        left = border + index % columns * (width + border)
        sheet[top : top + height, left : left + width] = frame
    return sheet


def write_image(path: str | os.PathLike, image: np.ndarray, metadata: Mapping[str, str] | None = None) -> None:
    """Write an image.

    Args:
      path: ends in one of IMAGE_SUFFIXES; missing parent folders are created.
      image: uint8 `(H, W, 3)`.
      metadata: texts stored in a .png file; ignored for the other formats.

    Raises:
      ValueError: the path cannot be written, or the image has another shape or dtype.
    """
    check_writable(path, IMAGE_SUFFIXES)
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image must be (H, W, 3) uint8, but is {image.shape} {image.dtype}")
    temporary = _temporary_path(Path(path))
    try:
        if temporary.suffix == ".png":
            _save_png(temporary, image, metadata or {})
        else:
            Image.fromarray(image).save(temporary, quality=95)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_image(path: str | os.PathLike | BinaryIO, resolution: int | None = None) -> np.ndarray:
    """Read an image as displayed: rotated by its EXIF orientation, transparent parts over white.

    Args:
      path: path of a file, or an open file, in any format that Pillow reads; of an animation the first frame is read.
      resolution: side in pixels to which the central square is resized (Lanczos, antialiased); None for the full image
        at its own size.

    Returns: uint8 `(H, W, 3)`, or `(resolution, resolution, 3)`.

    Raises:
      ValueError: the file does not exist, is not a readable image, or has more than MAX_PIXELS pixels.
    """
    if isinstance(path, (str, os.PathLike)):
        path = _existing_file(path)
    if resolution is not None and resolution < 1:
        raise ValueError(f"resolution is {resolution}, but must be at least one pixel")
    try:
        with warnings.catch_warnings():
            # Pillow's warning starts at fewer pixels than are refused here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{path} is {image.width}x{image.height}; at most {MAX_PIXELS:,} pixels are read")
                image = _flat_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large; at most {MAX_PIXELS:,} pixels are read") from error
    except (OSError, SyntaxError) as error:  # Pillow's exceptions derive from OSError; bad PNG chunks are SyntaxError
        raise ValueError(f"{path} is not an image that can be read ({error})") from error
    if resolution is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.array(image)


def check_writable(path: str | os.PathLike, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Check before any long computation that a file can be written, and create its missing parent folders.

    Raises:
      ValueError: the path ends in none of `suffixes`, is a folder, or its folder cannot be created or written.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} must end in one of {', '.join(suffixes)}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a file is to be written")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from error


def _check_frames(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"frames must be (T, H, W, 3) uint8, but are {frames.shape} {frames.dtype}")


def _temporary_path(path: Path) -> Path:
    """Return a temporary path with the same suffix in the same folder, from where moving into place is atomic."""
    return path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix.lower()}")


def _existing_file(path: str | os.PathLike) -> Path:
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a file is to be read")
    return path


def simplest_rate(count: int, end: int, tick: Fraction) -> Fraction:
    """Return the frame rate of smallest denominator at which `count` frames last `end` ticks to within one tick."""
    measured = count / (end * tick)
    for denominator in range(1, 1002):
        rate = Fraction(round(measured * denominator), denominator)
        if rate and abs(count / rate - end * tick) <= tick:
            return rate
    return measured


def _flat_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit greys to 255 instead of scaling them.
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _save_png(path: Path, image: np.ndarray, metadata: Mapping[str, str]) -> None:
    texts = PngImagePlugin.PngInfo()
    for key, text in metadata.items():
        texts.add_itxt(key, text)
    Image.fromarray(image).save(path, pnginfo=texts)


def _save_gif(
    path: Path, frames: np.ndarray, fps: Fraction, times: Sequence[Fraction], metadata: Mapping[str, str]
) -> None:
    """Write a looping gif, with one palette and ordered dithering so that still regions do not flicker."""
    tick = Fraction(1, 100)
    height, width = frames.shape[1:3]
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=tick)
    split, sink = graph.add("split"), graph.add("buffersink")
    palette = graph.add("palettegen", "stats_mode=full")
    paletted = graph.add("paletteuse", "dither=bayer:bayer_scale=4")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(paletted, 1, 0)
    palette.link_to(paletted, 0, 1)
    paletted.link_to(sink)
    graph.configure()
    with av.open(str(path), "w", format="gif", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        stream.time_base = stream.codec_context.time_base = tick
        for frame, time in zip(frames, times, strict=True):
            video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            video_frame.pts, video_frame.time_base = round(time / tick), tick
            source.push(video_frame)
        source.push(None)
        for _ in frames:
            container.mux(stream.encode(sink.pull()))
        container.mux(stream.encode(None))
    if metadata:
        _add_gif_comment(path, json.dumps(dict(metadata)).encode())


def _add_gif_comment(path: Path, text: bytes) -> None:
    """Insert a comment extension (GIF89a, section 24) after the header and its colour table."""
    content = path.read_bytes()
    flags = content[10]
    header = 13 + (3 << (flags % 8 + 1) if flags & 0x80 else 0)
    chunks = [text[start : start + 255] for start in range(0, len(text), 255)]
    blocks = b"".join(bytes([len(chunk)]) + chunk for chunk in chunks)
    path.write_bytes(content[:header] + b"\x21\xfe" + blocks + b"\x00" + content[header:])
