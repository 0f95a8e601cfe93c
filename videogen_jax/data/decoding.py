"""Frames out of video files, picked by time stamp, upright, with square pixels, cut to a square and resized.

Everything in here runs in worker processes: it imports neither JAX nor anything that does.

Times are seconds since the first frame that the file shows. A frame is picked for a time if no other is nearer, so it
is wrong by half the distance to its neighbour at most, whatever the file's frame rate, constant or not.
"""

import bisect
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, BinaryIO, Self

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from PIL import Image

from videogen_jax.video_io import simplest_rate

MIN_DISTINCT = 0.75  # of the frames of a clip: with fewer the file's frame rate is below what is asked for
HD_HEIGHT = 720  # from here on a file that does not name its colours has those of BT.709, below of BT.601
_NOT_STATED = 2  # AVCOL_SPC_UNSPECIFIED
# Area averaging keeps shrunk frames free of aliases; bicubic for what has to be enlarged.
_SHRINK = Interpolation.AREA | Interpolation.ACCURATE_RND
_ENLARGE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND


class BadVideo(ValueError):
    """A file that cannot be used; the message is the reason, without the file's name."""


@dataclasses.dataclass(frozen=True)
class Framing:
    """The square that is cut out of every frame of a clip.

    Attributes:
      resolution: side in pixels after resizing.
      place: where the square lies along the longer side, 0 (left or top) to 1; 0.5 is the centre.
      flip: mirror left and right.
    """

    resolution: int
    place: float = 0.5
    flip: bool = False

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """The square of an upright picture `(H, W, 3)` whose shorter side is `resolution`."""
        height, width = picture.shape[:2]
        top, left = (int(self.place * (side - self.resolution)) for side in (height, width))
        square = picture[top : top + self.resolution, left : left + self.resolution]
        return np.ascontiguousarray(square[:, ::-1] if self.flip else square)


class VideoFile:
    """An open video file, for use in a `with` statement.

    Args:
      file: a path, or a seekable binary file, which is closed at the end.

    Attributes:
      duration: seconds as the file states them, or None.

    Raises:
      BadVideo: the file is missing, empty, not a video, or without a video stream.
    """

    def __init__(self, file: str | BinaryIO):
        self._file = file
        self._reformatter = VideoReformatter()
        self._open()
        stream = self._stream
        self.duration = None
        if stream.duration:
            self.duration = float(stream.duration * stream.time_base)
        elif self._container.duration:  # of what begins at 0, as Matroska has it, and not with the first frame
            self.duration = self._container.duration / av.time_base - float((stream.start_time or 0) * stream.time_base)

    def _open(self) -> None:
        try:
            if _is_empty(self._file):
                raise BadVideo("the file is empty")
            self._container = av.open(self._file, metadata_errors="ignore")
        except FileNotFoundError as error:
            raise BadVideo("the file does not exist") from error
        except BadVideo:
            raise
        except (av.FFmpegError, OSError, ValueError) as error:
            raise BadVideo(f"not a video that can be read ({_short(error)})") from error
        if not self._container.streams.video:
            kinds = sorted({stream.type for stream in self._container.streams})
            self._container.close()
            raise BadVideo(f"no pictures in it, only {' and '.join(kinds) or 'nothing'}")
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1  # the cores are shared out by file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: Any) -> None:
        self._container.close()
        if not isinstance(self._file, str):
            self._file.close()

    def frames(self, start: float = 0.0) -> Iterator[tuple[float, av.VideoFrame]]:
        """All frames as (time, frame), in the order of their times, from the one shown at `start` or before it.

        Raises:
          BadVideo: while iterating, where the file is damaged.
        """
        stream = self._stream
        origin = (stream.start_time or 0) * stream.time_base
        if start > 0:
            self._container.seek(int((origin + Fraction(start)) / stream.time_base), stream=stream)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        count, previous = 0, None
        try:
            for frame in self._container.decode(stream):
                if frame.is_corrupt:
                    raise BadVideo(f"damaged at {previous or 0.0:.2f} s")
                time = count / rate if frame.pts is None else float(frame.pts * frame.time_base - origin)
                count += 1
                if previous is None:
                    if start > 0 and time > start:  # the index misled the search: look from the beginning
                        self._container.close()
                        self._open()
                        yield from self.frames()
                        return
                elif time <= previous:
                    continue  # a second frame for the same moment
                previous = time
                yield time, frame
        except av.FFmpegError as error:
            raise BadVideo(f"damaged at {previous or 0.0:.2f} s ({_short(error)})") from error
        if previous is None:
            raise BadVideo("no frame in it can be decoded")

    def timing(self) -> "Timing":
        """When each frame is shown, read from the packets of the whole file; nothing is decoded.

        Raises:
          BadVideo: the file ends early or holds no frames.
        """
        stamps: set[int] = set()
        try:
            for packet in self._container.demux(self._stream):
                stamp = packet.dts if packet.pts is None else packet.pts  # an .avi has no other
                if packet.is_corrupt:
                    raise BadVideo(f"not whole: it breaks off in frame {len(stamps) + 1}")
                if stamp is not None and not packet.is_discard:
                    stamps.add(stamp)
        except av.FFmpegError as error:
            raise BadVideo(f"damaged in frame {len(stamps) + 1} ({_short(error)})") from error
        stream = self._stream
        tick, start = stream.time_base, stream.start_time or 0
        said = (stream.average_rate, stream.guessed_rate)
        self._container.close()
        self._open()  # from the beginning again
        if not stamps:
            raise BadVideo("no frames in it")
        return Timing.of([stamp - start for stamp in sorted(stamps)], tick, said)

    @property
    def start(self) -> Fraction:
        """When the first frame is shown in the file's own clock, which its sound goes by, in seconds."""
        return (self._stream.start_time or 0) * self._stream.time_base

    def whole(self, frame: av.VideoFrame) -> np.ndarray:
        """A frame as it is seen, uint8 `(H, W, 3)`: turned as the file says, the shorter side of its pixels widened."""
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        size = (round(frame.height / min(aspect, 1)), round(frame.width * max(aspect, 1)))
        return np.ascontiguousarray(np.rot90(self._resized(frame, size), round(frame.rotation / 90)))

    def picture(self, frame: av.VideoFrame, framing: Framing) -> np.ndarray:
        """A frame as it is seen, uint8 `(R, R, 3)`: turned as the file says, square pixels, cut and resized."""
        quarters = round(frame.rotation / 90)
        aspect = float(self._stream.sample_aspect_ratio or 1)
        width, height = frame.width * aspect, frame.height
        scale = framing.resolution / min(width, height)
        size = (max(framing.resolution, round(height * scale)), max(framing.resolution, round(width * scale)))
        return framing.cut(np.rot90(self._resized(frame, size), quarters))

    def thumbnail(self, frame: av.VideoFrame, side: int) -> np.ndarray:
        """The whole frame squeezed into a small square, uint8 `(side, side, 3)`, to compare frames by."""
        return self._resized(frame, (side, side))

    def _resized(self, frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        colours = None  # as the frame states
        if frame.colorspace == _NOT_STATED:
            colours = Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601
        return self._reformatter.reformat(
            frame,
            width=size[1],
            height=size[0],
            format="rgb24",
            src_colorspace=colours,
            interpolation=_SHRINK if size[0] * size[1] < frame.width * frame.height else _ENLARGE,
            threads=1,
        ).to_ndarray()


@dataclasses.dataclass(frozen=True)
class Timing:
    """When the frames of a file are shown.

    Attributes:
      stamps: one of each frame, in ticks since the file's first, rising.
      tick: seconds.
      rate: frames a second, where it is constant to within a tick; otherwise None.
    """

    stamps: tuple[int, ...]
    tick: Fraction
    rate: Fraction | None

    @classmethod
    def of(cls, stamps: Sequence[int], tick: Fraction, said: Iterable[Fraction | None] = ()) -> Self:
        """The timing of frames at rising `stamps`; `said` are rates that the file names, which may be wrong."""
        return cls(tuple(stamps), tick, _constant_rate(stamps, tick, said))

    def __len__(self) -> int:
        return len(self.stamps)

    def nearest(self, time: float) -> int:
        """The number, from 0, of the frame whose stamp is nearest to `time`, in seconds since the file's first."""
        ticks = time / float(self.tick)
        after = bisect.bisect(self.stamps, ticks)
        return min((k for k in (after - 1, after) if 0 <= k < len(self)), key=lambda k: abs(self.stamps[k] - ticks))

    def time(self, number: int) -> Fraction:
        """When frame `number` is shown, in seconds since the file's first; at a constant rate without rounding."""
        if self.rate is not None:
            return self.stamps[0] * self.tick + number / self.rate
        return self.stamps[number] * self.tick

    def lasts(self, number: int) -> Fraction:
        """How long frame `number` is shown, in seconds; the last as long as the one before it."""
        first = min(number, len(self) - 2)
        return self.time(first + 1) - self.time(first)


def _constant_rate(stamps: Sequence[int], tick: Fraction, said: Iterable[Fraction | None]) -> Fraction | None:
    if len(stamps) < 2:
        return None
    measured = simplest_rate(len(stamps) - 1, stamps[-1] - stamps[0], tick)
    ntsc = Fraction(round(measured * 1001 / 1000) * 1000, 1001)  # likelier than 983/41, though less simple
    for rate in (*said, measured, ntsc) if measured.denominator <= 10 else (*said, ntsc, measured):
        if rate and all(abs((stamp - stamps[0]) * tick - k / rate) <= tick for k, stamp in enumerate(stamps)):
            return rate
    return None


class FrameArray:
    """Frames in memory behind the face of `VideoFile`.

    Args:
      frames: uint8 `(T, H, W, 3)`.
      fps: frames a second.
    """

    def __init__(self, frames: np.ndarray, fps: float):
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise BadVideo(f"frames are {frames.shape} {frames.dtype}, not (T, H, W, 3) uint8")
        self._frames, self._fps = frames, fps
        self.duration = len(frames) / fps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: Any) -> None:
        pass

    def frames(self, start: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
        first = max(0, int(start * self._fps))
        for index in range(first, len(self._frames)):
            yield index / self._fps, self._frames[index]

    def whole(self, frame: np.ndarray) -> np.ndarray:
        return frame

    def picture(self, frame: np.ndarray, framing: Framing) -> np.ndarray:
        height, width = frame.shape[:2]
        scale = framing.resolution / min(height, width)
        return framing.cut(resized_array(frame, (round(height * scale), round(width * scale))))

    def thumbnail(self, frame: np.ndarray, side: int) -> np.ndarray:
        return resized_array(frame, (side, side))


def at_times(frames: Iterable[tuple[float, Any]], times: Iterable[float]) -> Iterator[tuple[float, Any]]:
    """For each of the rising `times` the (time, frame) nearest to it; ends early where the frames end before.

    The last frame stands for times of up to half the distance to its predecessor after it.
    """
    times = iter(times)
    wanted = next(times, None)
    previous, gap = None, 0.0
    for time, frame in frames:
        while wanted is not None and previous is not None and wanted <= (previous[0] + time) / 2:
            yield previous
            wanted = next(times, None)
        if wanted is None:
            return
        gap = time - previous[0] if previous is not None else gap
        previous = (time, frame)
    while wanted is not None and previous is not None and wanted <= previous[0] + gap / 2:
        yield previous
        wanted = next(times, None)


def read_frames(video: VideoFile | FrameArray, times: Sequence[float], framing: Framing | None) -> np.ndarray:
    """The frames at rising `times` in seconds, uint8 `(T, R, R, 3)`; without a framing whole, `(T, H, W, 3)`.

    Raises:
      BadVideo: the video ends before the last time, is damaged, or has too few frames a second for these times.
    """
    pictures: list[np.ndarray] = []
    chosen: list[float] = []
    see = video.whole if framing is None else functools.partial(video.picture, framing=framing)
    for time, frame in at_times(video.frames(times[0]), times):
        pictures.append(pictures[-1] if chosen and chosen[-1] == time else see(frame))
        chosen.append(time)
    if len(pictures) < len(times):
        end = f"ends at {chosen[-1]:.2f} s" if chosen else "has no frames"
        raise BadVideo(f"shorter than asked: it {end} where frames up to {times[-1]:.2f} s are needed")
    check_distinct(chosen, times)
    return np.stack(pictures)


def check_distinct(chosen: Sequence[float], times: Sequence[float]) -> None:
    """BadVideo if too few different frames were picked for `times`: the file has fewer frames a second than asked."""
    if len(times) > 1 and len(set(chosen)) < MIN_DISTINCT * len(times):
        asked = (len(times) - 1) / (times[-1] - times[0])
        raise BadVideo(
            f"too few frames a second: {len(set(chosen))} different ones where {len(times)} are asked for, "
            f"{asked:.4g} a second"
        )


def resized_array(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrink = size[0] * size[1] < frame.shape[0] * frame.shape[1]
    resample = Image.Resampling.BOX if shrink else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), resample))


def _is_empty(file: str | BinaryIO) -> bool:
    """Of an open file that it is at its beginning, too."""
    if isinstance(file, str):
        return os.path.isfile(file) and os.path.getsize(file) == 0
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size == 0


def _short(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip()
