"""Frames to and from files: videos (.mp4, .webm, .gif), contact sheets and images.

Frames are uint8 (T, H, W, 3), sRGB, channels last. Every file is written beside its place and moved there when it is
whole, so that neither an error nor a stop leaves half a file, or destroys the one that was there.
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
# More pixels than this in a file offered as a reference image is an attack or a mistake.
MAX_PIXELS = 100_000_000
MAX_GIF_FPS = 50
# Below this side in pixels x264's macroblock trees are left out: its assembly takes 16 macroblocks of 16 pixels a time,
# and past the end of what has been written it reads what happens to lie there. The same frames then gave other files
# now and then (one in six at 16 pixels, one in fifty at 64; none of 800 at 128, 256, 384; none with the assembly off).
_LEAST_MBTREE = 256
# Keys that an mp4 file holds in its classic, widely read form.
_MP4_KEYS = frozenset({"title", "artist", "comment", "description", "copyright", "date", "genre"})


class VideoWriter:
    """Writes a video as its frames arrive, in a `with` block; the file appears at the end of the block.

    .mp4 (H.264) and .webm (VP9) are encoded on the way, in 4:2:0 with BT.709 colours; an odd side of an .mp4 is padded
    by repeating its last row or column, as the format has no odd sides. .gif and .png (a contact sheet) keep the frames
    until the end. An error inside the block leaves nothing behind.

    Args:
      path: ends in one of SUFFIXES; folders above it are created.
      fps: frames a second, e.g. 7.5; kept as the nearest fraction with a denominator up to 1001. A .gif counts in
        hundredths of a second: each frame appears at the nearest one, at most MAX_GIF_FPS a second. Unused for .png.
      size: (height, width) of the frames in pixels.
      metadata: texts stored in the file, e.g. {"title": prompt}. In a .gif they are one JSON comment.
      tick: seconds to whose multiples the times given to `append` are rounded, for frames that do not come evenly;
        None: 1 / fps. A .webm rounds to milliseconds and a .gif to hundredths of a second besides.

    Attributes:
      container: PyAV's, inside the block, where other streams can be added before the first frame and then be muxed; of
        a .gif or .png None.

    Raises:
      ValueError: the path cannot be written, fps or size make no video, frames have another shape or dtype, times do
        not rise, or no frames were given.
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
        self._stamps: list[int] = []  # of the frames that are kept; of those encoded the last alone
        self._temporary = _beside(self.path)
        self._kept: list[np.ndarray] = []
        self._stream = None

    def __enter__(self) -> Self:
        if self.suffix in (".mp4", ".webm"):
            try:
                self._open()
            except BaseException:
                self._abandon()
                raise
        return self

    def append(self, frames: np.ndarray, times: Sequence[Fraction] | None = None) -> None:
        """Adds frames uint8 (N, H, W, 3), or one frame (H, W, 3), of the size that the writer was made with.

        times: when each is shown, in seconds from 0, rising; None: 1 / fps after the one before. The last frame of the
        video is shown for 1 / fps.
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
                raise ValueError(
                    f"a frame is to be shown at {float(stamp * self.tick):g} s, but times must rise from 0"
                )
            if self.suffix in (".gif", ".png"):
                self._kept.append(frame.copy())
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
                    raise ValueError(f"no frames were given for {self.path}")
                self._finish()
                os.replace(self._temporary, self.path)
        finally:
            self._abandon()

    def _open(self) -> None:
        height, width = self.size
        if self.suffix == ".mp4":
            flags = "+faststart" if set(self.metadata) <= _MP4_KEYS else "+faststart+use_metadata_tags"
            self.container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": flags})
            codec, options = "libx264", {"crf": "16", "preset": "medium"}
            if min(height, width) < _LEAST_MBTREE:
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
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        picture.pts, picture.duration, picture.time_base = stamp, duration, self.tick
        self.container.mux(self._stream.encode(picture))

    def _finish(self) -> None:
        if self.suffix == ".png":
            _save_png(self._temporary, contact_sheet(np.stack(self._kept)), self.metadata)
        elif self.suffix == ".gif":
            times = [stamp * self.tick for stamp in self._stamps]
            _save_gif(self._temporary, np.stack(self._kept), self.fps, times, self.metadata)
        else:
            self.container.mux(self._stream.encode(None))
            self.container.close()

    def _abandon(self) -> None:
        """Lets go of everything that is not the finished file; after a success there is nothing left to remove."""
        self._kept.clear()
        if self.container is not None:
            # Closing writes what is left; a container that has failed may be unable to.
            with contextlib.suppress(av.FFmpegError):
                self.container.close()
            self.container = self._stream = None
        self._temporary.unlink(missing_ok=True)


def write_video(
    path: str | os.PathLike, frames: np.ndarray, fps: float, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes frames uint8 (T, H, W, 3) in the format that the ending of the path names; see `VideoWriter`."""
    frames = np.asarray(frames)
    _check_frames(frames)
    with VideoWriter(path, fps, frames.shape[1:3], metadata) as writer:
        writer.append(frames)


def read_video(path: str | os.PathLike) -> tuple[np.ndarray, float]:
    """Reads a video: frames uint8 (T, H, W, 3) and frames a second.

    Where the container does not state the rate, or keeps coarse time stamps (.gif: hundredths of a second), fps is the
    simplest fraction that explains the length to within one time stamp.

    Raises:
      ValueError: the file does not exist, or is not a video that can be read.
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
        raise ValueError(f"{path} is not a video that can be read (it holds no frames)")
    if end and (not rate or abs(len(frames) / rate - end * tick) > tick or tick > Fraction(1, 1000)):
        rate = simplest_rate(len(frames), end, tick)
    if not rate:
        raise ValueError(f"{path} does not say how many frames a second it shows")
    return np.stack(frames), float(rate)


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The texts that were stored in a file (`VideoWriter`, `metadata`), those of others among them; keys as written.

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
            except ValueError:  # a comment of somebody else's
                return {"comment": comment.decode(errors="replace")} if comment else {}
            return {str(key): str(text) for key, text in texts.items()} if isinstance(texts, dict) else {}
        with av.open(str(path)) as container:
            # Matroska shouts: its keys come back in capitals.
            return {key.lower(): text for key, text in container.metadata.items()}
    except (av.FFmpegError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error


def contact_sheet(frames: np.ndarray, columns: int = 8, border: int = 2) -> np.ndarray:
    """Lays frames uint8 (T, H, W, 3) out row by row on white, `border` pixels around each: uint8 (H', W', 3)."""
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
    """Writes an image uint8 (H, W, 3); the path ends in one of IMAGE_SUFFIXES, folders above it are created.

    metadata: texts stored in a .png file; the other formats have no place for them.
    """
    check_writable(path, IMAGE_SUFFIXES)
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an image is (H, W, 3) uint8, but this is {image.shape} {image.dtype}")
    temporary = _beside(Path(path))
    try:
        if temporary.suffix == ".png":
            _save_png(temporary, image, metadata or {})
        else:
            Image.fromarray(image).save(temporary, quality=95)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_image(path: str | os.PathLike | BinaryIO, resolution: int | None = None) -> np.ndarray:
    """Reads an image as it is seen: turned as its EXIF orientation says, what is transparent over white.

    Args:
      path: a file or an open one, in any format that Pillow reads; of several frames the first is taken.
      resolution: side in pixels; the central square is cut out and resized to it (Lanczos, anti-aliased). None: as is.

    Returns:
      uint8 (H, W, 3), or (resolution, resolution, 3).

    Raises:
      ValueError: the file does not exist, is not an image that can be read, or has more than MAX_PIXELS pixels.
    """
    if isinstance(path, (str, os.PathLike)):
        path = _existing_file(path)
    if resolution is not None and resolution < 1:
        raise ValueError(f"resolution is {resolution}, but must be at least one pixel")
    try:
        with warnings.catch_warnings():
            # Pillow warns of fewer pixels than are refused here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{path} is {image.width}x{image.height}; at most {MAX_PIXELS:,} pixels are read")
                image = _flat_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large; at most {MAX_PIXELS:,} pixels are read") from error
    except (
        OSError,
        SyntaxError,
    ) as error:  # Pillow's own exceptions derive from OSError; bad PNG chunks are SyntaxError
        raise ValueError(f"{path} is not an image that can be read ({error})") from error
    if resolution is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.array(image)


def check_writable(path: str | os.PathLike, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Makes sure, before any long work, that a file can be written; creates the folders above it.

    Raises:
      ValueError: the ending is none of suffixes, the path is a folder, or its folder cannot be created or written.
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
        raise ValueError(f"frames are (T, H, W, 3) uint8, but these are {frames.shape} {frames.dtype}")


def _beside(path: Path) -> Path:
    """A temporary name in the same folder, so that moving it into place is atomic; the ending stays."""
    return path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix.lower()}")


def _existing_file(path: str | os.PathLike) -> Path:
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a file is to be read")
    return path


def simplest_rate(count: int, end: int, tick: Fraction) -> Fraction:
    """The frames a second, of smallest denominator, at which `count` frames last `end` ticks to within one tick."""
    measured = count / (end * tick)
    for denominator in range(1, 1002):
        rate = Fraction(round(measured * denominator), denominator)
        if rate and abs(count / rate - end * tick) <= tick:
            return rate
    return measured


def _flat_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit grays to 255 where it should scale them.
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
    """An endlessly looping gif. One palette from all frames, and ordered dithering, which is bound to the place and not
    to the frame: what does not move does not flicker."""
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
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = round(time / tick), tick
            source.push(picture)
        source.push(None)
        for _ in frames:
            container.mux(stream.encode(sink.pull()))
        container.mux(stream.encode(None))
    if metadata:
        _add_gif_comment(path, json.dumps(dict(metadata)).encode())


def _add_gif_comment(path: Path, text: bytes) -> None:
    """Puts a comment extension (GIF89a, section 24) behind the header and its colour table."""
    content = path.read_bytes()
    flags = content[10]
    header = 13 + (3 << (flags % 8 + 1) if flags & 0x80 else 0)
    blocks = b"".join(bytes([len(part)]) + part for part in (text[at : at + 255] for at in range(0, len(text), 255)))
    path.write_bytes(content[:header] + b"\x21\xfe" + blocks + b"\x00" + content[header:])
