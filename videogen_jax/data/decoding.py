"""Frames of video files, selected by time stamp, upright, with square pixels, cropped to a square and resized.

This module runs in worker processes: it imports neither JAX nor any module that does.

Times are seconds since the file's first displayed frame. The frame selected for a time is the nearest one, so the error
is at most half the distance to its neighbour, whatever the file's frame rate and whether or not it is constant.
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

MIN_DISTINCT = 0.75  # share of distinct frames below which a clip's rate is too high for the file
HD_HEIGHT = 720  # a file without a stated colour space is taken as BT.709 from this height on, as BT.601 below it
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
# Area averaging avoids aliasing when frames are shrunk; bicubic interpolation is for frames that are enlarged.
_SHRINK = Interpolation.AREA | Interpolation.ACCURATE_RND
_ENLARGE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND


class BadVideo(ValueError):
    """An error for a file that cannot be used; the message is the reason, without the file's name."""


@dataclasses.dataclass(frozen=True)
class Framing:
    """The square crop that is applied to every frame of a clip.

    Attributes:
      resolution: side in pixels after resizing.
      position: position of the square along the longer side, from 0 (left or top) to 1; 0.5 is the centre.
      flip: whether to mirror left and right.
    """

    resolution: int
    position: float = 0.5
    flip: bool = False

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Crop an upright image `(H, W, 3)`, whose shorter side is `resolution`, to `(R, R, 3)`."""
        height, width = image.shape[:2]
        top, left = (int(self.position * (side - self.resolution)) for side in (height, width))
        square = image[top : top + self.resolution, left : left + self.resolution]
        return np.ascontiguousarray(square[:, ::-1] if self.flip else square)


class VideoFile:
    """An open video file, for use in a `with` statement.

    Args:
      file: a path, or a seekable binary file, which is closed on exit.

    Attributes:
      duration: in seconds as stated by the file, or None.

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
        elif self._container.duration:  # Matroska states a duration that starts at 0, not at the first frame
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
            raise BadVideo(f"not a readable video ({_short(error)})") from error
        if not self._container.streams.video:
            kinds = sorted({stream.type for stream in self._container.streams})
            self._container.close()
            raise BadVideo(f"it has no video stream, only {' and '.join(kinds) or 'nothing'}")
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1  # parallelism is over files

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: Any) -> None:
        self._container.close()
        if not isinstance(self._file, str):
            self._file.close()

    def frames(self, start: float = 0.0) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield (time, frame) in the order of the times, from the frame displayed at `start` or an earlier one.

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
                    if start > 0 and time > start:  # the file's index is wrong: read from the beginning
                        self._container.close()
                        self._open()
                        yield from self.frames()
                        return
                elif time <= previous:
                    continue  # another frame with the same time stamp
                previous = time
                yield time, frame
        except av.FFmpegError as error:
            raise BadVideo(f"damaged at {previous or 0.0:.2f} s ({_short(error)})") from error
        if previous is None:
            raise BadVideo("none of its frames can be decoded")

    def timing(self) -> "Timing":
        """Read the time stamps of all frames from the packets of the file, without decoding them.

        Raises:
          BadVideo: the file is truncated or holds no frames.
        """
        stamps: set[int] = set()
        try:
            for packet in self._container.demux(self._stream):
                stamp = packet.dts if packet.pts is None else packet.pts  # an .avi has decoding time stamps only
                if packet.is_corrupt:
                    raise BadVideo(f"truncated: it breaks off in frame {len(stamps) + 1}")
                if stamp is not None and not packet.is_discard:
                    stamps.add(stamp)
        except av.FFmpegError as error:
            raise BadVideo(f"damaged in frame {len(stamps) + 1} ({_short(error)})") from error
        stream = self._stream
        tick, start = stream.time_base, stream.start_time or 0
        stated_rates = (stream.average_rate, stream.guessed_rate)
        self._container.close()
        self._open()  # back to the beginning
        if not stamps:
            raise BadVideo("it has no frames")
        return Timing.from_stamps([stamp - start for stamp in sorted(stamps)], tick, stated_rates)

    @property
    def start(self) -> Fraction:
        """Time of the first frame in seconds of the file's own clock, which its sound refers to."""
        return (self._stream.start_time or 0) * self._stream.time_base

    def full_image(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert a frame to an upright image with square pixels, uint8 `(H, W, 3)`, without losing resolution."""
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        size = (round(frame.height / min(aspect, 1)), round(frame.width * max(aspect, 1)))
        return np.ascontiguousarray(np.rot90(self._resized(frame, size), round(frame.rotation / 90)))

    def square_image(self, frame: av.VideoFrame, framing: Framing) -> np.ndarray:
        """Convert a frame to an upright image with square pixels, resized and cropped to uint8 `(R, R, 3)`."""
        quarters = round(frame.rotation / 90)
        aspect = float(self._stream.sample_aspect_ratio or 1)
        width, height = frame.width * aspect, frame.height
        scale = framing.resolution / min(width, height)
        size = (max(framing.resolution, round(height * scale)), max(framing.resolution, round(width * scale)))
        return framing.crop(np.rot90(self._resized(frame, size), quarters))

    def thumbnail(self, frame: av.VideoFrame, side: int) -> np.ndarray:
        """Squeeze the whole frame into a small square, uint8 `(side, side, 3)`, for comparing frames."""
        return self._resized(frame, (side, side))

    def _resized(self, frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        color_space = None  # the one that the frame states
        if frame.colorspace == _UNSPECIFIED:
            color_space = Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601
        return self._reformatter.reformat(
            frame,
            width=size[1],
            height=size[0],
            format="rgb24",
            src_colorspace=color_space,
            interpolation=_SHRINK if size[0] * size[1] < frame.width * frame.height else _ENLARGE,
            threads=1,
        ).to_ndarray()


@dataclasses.dataclass(frozen=True)
class Timing:
    """The display times of the frames of a file.

    Attributes:
      stamps: increasing time stamps, one per frame, in ticks since the first.
      tick: in seconds.
      rate: frames per second if constant to within a tick; otherwise None.
    """

    stamps: tuple[int, ...]
    tick: Fraction
    rate: Fraction | None

    @classmethod
    def from_stamps(cls, stamps: Sequence[int], tick: Fraction, stated_rates: Iterable[Fraction | None] = ()) -> Self:
        """Make the timing of frames at increasing `stamps`.

        Args:
          stamps: in ticks since the first frame.
          tick: in seconds.
          stated_rates: frames per second as stated by the file; those that do not fit the stamps are ignored.
        """
        return cls(tuple(stamps), tick, _constant_rate(stamps, tick, stated_rates))

    def __len__(self) -> int:
        return len(self.stamps)

    def nearest(self, time: float) -> int:
        """Return the index of the frame whose stamp is nearest to `time`, in seconds since the first frame."""
        ticks = time / float(self.tick)
        after = bisect.bisect(self.stamps, ticks)
        return min((k for k in (after - 1, after) if 0 <= k < len(self)), key=lambda k: abs(self.stamps[k] - ticks))

    def time(self, index: int) -> Fraction:
        """Return when a frame is displayed, in seconds since the first; exact if the rate is constant."""
        if self.rate is not None:
            return self.stamps[0] * self.tick + index / self.rate
        return self.stamps[index] * self.tick

    def duration(self, index: int) -> Fraction:
        """Return how long a frame is displayed, in seconds; the last frame as long as the one before it."""
        first = min(index, len(self) - 2)
        return self.time(first + 1) - self.time(first)


def _constant_rate(stamps: Sequence[int], tick: Fraction, stated_rates: Iterable[Fraction | None]) -> Fraction | None:
    if len(stamps) < 2:
        return None
    measured = simplest_rate(len(stamps) - 1, stamps[-1] - stamps[0], tick)
    ntsc = Fraction(round(measured * 1001 / 1000) * 1000, 1001)  # likelier than 983/41, though less simple
    for rate in (*stated_rates, measured, ntsc) if measured.denominator <= 10 else (*stated_rates, ntsc, measured):
        if rate and all(abs((stamp - stamps[0]) * tick - k / rate) <= tick for k, stamp in enumerate(stamps)):
            return rate
    return None


class FrameArray:
    """Frames in memory, with the interface of `VideoFile`.

    Args:
      frames: uint8 `(T, H, W, 3)`.
      fps: frames per second.

    Raises:
      BadVideo: the frames have another shape or dtype.
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

    def full_image(self, frame: np.ndarray) -> np.ndarray:
        return frame

    def square_image(self, frame: np.ndarray, framing: Framing) -> np.ndarray:
        height, width = frame.shape[:2]
        scale = framing.resolution / min(height, width)
        return framing.crop(_resized_array(frame, (round(height * scale), round(width * scale))))

    def thumbnail(self, frame: np.ndarray, side: int) -> np.ndarray:
        return _resized_array(frame, (side, side))


def nearest_frames(frames: Iterable[tuple[float, Any]], times: Iterable[float]) -> Iterator[tuple[float, Any]]:
    """Yield for each time the (time, frame) nearest to it.

    Args:
      frames: (time, frame) in increasing order of time.
      times: increasing, in seconds. The last frame also serves times up to half a frame distance after it; for later
        times nothing is yielded.
    """
    times = iter(times)
    target = next(times, None)
    previous, gap = None, 0.0
    for time, frame in frames:
        while target is not None and previous is not None and target <= (previous[0] + time) / 2:
            yield previous
            target = next(times, None)
        if target is None:
            return
        gap = time - previous[0] if previous is not None else gap
        previous = (time, frame)
    while target is not None and previous is not None and target <= previous[0] + gap / 2:
        yield previous
        target = next(times, None)


def read_frames(video: VideoFile | FrameArray, times: Sequence[float], framing: Framing | None) -> np.ndarray:
    """Read the frames of a video nearest to `times`.

    Args:
      video: the video.
      times: increasing, in seconds.
      framing: the square crop; None for full frames.

    Returns: uint8 `(T, R, R, 3)`, or `(T, H, W, 3)` without a framing.

    Raises:
      BadVideo: the video ends before the last time, is damaged, or has too low a frame rate for these times.
    """
    images: list[np.ndarray] = []
    frame_times: list[float] = []
    convert = video.full_image if framing is None else functools.partial(video.square_image, framing=framing)
    for time, frame in nearest_frames(video.frames(times[0]), times):
        images.append(images[-1] if frame_times and frame_times[-1] == time else convert(frame))
        frame_times.append(time)
    if len(images) < len(times):
        end = f"ends at {frame_times[-1]:.2f} s" if frame_times else "has no frames"
        raise BadVideo(f"too short: it {end}, but frames up to {times[-1]:.2f} s are needed")
    check_distinct(frame_times, times)
    return np.stack(images)


def check_distinct(frame_times: Sequence[float], times: Sequence[float]) -> None:
    """Check that a video's frame rate is not much lower than that of the times it is sampled at.

    Args:
      frame_times: the times of the frames selected for `times`.
      times: the sampling times.

    Raises:
      BadVideo: less than MIN_DISTINCT of the frames are distinct.
    """
    distinct = len(set(frame_times))
    if len(times) > 1 and distinct < MIN_DISTINCT * len(times):
        wanted_rate = (len(times) - 1) / (times[-1] - times[0])
        raise BadVideo(
            f"frame rate too low: {distinct} distinct frames for {len(times)} samples at {wanted_rate:.4g} per second"
        )


def _resized_array(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrink = size[0] * size[1] < frame.shape[0] * frame.shape[1]
    resample = Image.Resampling.BOX if shrink else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), resample))


def _is_empty(file: str | BinaryIO) -> bool:
    """Return whether a file has no content; rewinds an open file."""
    if isinstance(file, str):
        return os.path.isfile(file) and os.path.getsize(file) == 0
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size == 0


def _short(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip()
