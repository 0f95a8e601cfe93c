"""Raising the frame rate of a video file: its frames, time stamps, sound and metadata are written to a new file."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videogen_jax.data.clips import check_complete
from videogen_jax.data.decoding import BadVideo, Timing, VideoFile
from videogen_jax.interpolation.interpolator import Interpolator, factor_passes
from videogen_jax.interpolation.sound import Sound
from videogen_jax.video_io import MAX_GIF_FPS, VideoWriter, check_writable

SUFFIXES = (".mp4", ".webm", ".gif")
# Metadata of the container format itself, which is not copied.
_FORMAT_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
_MAX_TICKS = 1_000_000  # maximum number of ticks per second of a container's time base


@dataclasses.dataclass(frozen=True)
class Plan:
    """The properties of the source and the target file, known before any frame is decoded.

    Attributes:
      source, target: the files.
      timing: display times of the source's frames.
      start: time of the first frame, in seconds since the first frame or sound.
      origin: time of the first frame or sound, in seconds of the source's clock.
      factor: factor by which the number of frames is multiplied.
      slow_motion: whether the frame rate stays that of the source, so that the video becomes longer.
      metadata: texts of the source's container.
      has_sound: whether sound is copied.
    """

    source: Path
    target: Path
    timing: Timing
    start: Fraction
    origin: Fraction
    factor: int
    slow_motion: bool
    metadata: dict[str, str]
    has_sound: bool

    @property
    def fps(self) -> Fraction:
        """Frames per second of the target; the average if the rate is variable."""
        timing, last = self.timing, len(self.timing) - 1
        rate = timing.rate or last / (timing.time(last) - timing.time(0))
        return rate if self.slow_motion else rate * self.factor

    @property
    def tick(self) -> Fraction | None:
        """Time base of the target in seconds; None for the time between two frames."""
        if self.timing.rate is None:
            ticks = self.factor / self.timing.tick
        elif self.start:
            ticks = Fraction(self.fps.numerator)
            ticks *= -(
                -90_000 // ticks
            )  # at least as fine as MPEG's clock, as sound and video start at different times
        else:
            return None
        return 1 / min(ticks, Fraction(_MAX_TICKS))

    @property
    def shortest_duration(self) -> Fraction:
        """Display time in seconds of the target's shortest frame."""
        shortest = min(self.timing.duration(index) for index in range(len(self.timing)))
        return shortest if self.slow_motion else shortest / self.factor

    def times(self, index: int, following: int | None = None) -> list[Fraction]:
        """Return the times in the target of a frame of the source and of the `factor - 1` new frames after it.

        Args:
          index: of the frame.
          following: index of the next frame that was decoded; None if there is none, for the duration of `Timing`.

        Returns: `factor` times in seconds.
        """
        timing = self.timing
        begin = timing.time(index) - timing.time(0)
        duration = timing.duration(index) if following is None else timing.time(following) - timing.time(index)
        if self.slow_motion:
            begin, duration = begin * self.factor, duration * self.factor
        return [self.start + begin + duration * k / self.factor for k in range(self.factor)]

    @classmethod
    def from_file(
        cls, source: str | os.PathLike, target: str | os.PathLike, factor: int, slow_motion: bool = False
    ) -> "Plan":
        """Read a file's packets without decoding them, and warn of streams that are not copied.

        Args:
          source, target, factor, slow_motion: see the attributes.

        Raises:
          ValueError: the source is missing, not a video, damaged, truncated, or has a single frame; the target cannot
            be written or does not support the frame rate.
        """
        source, target = Path(source), Path(target)
        if source.is_dir():
            raise ValueError(f"{source} is a folder, but a video file is to be read")
        try:
            with VideoFile(str(source)) as video:
                timing, start = video.timing(), video.start
                if len(timing) < 2:
                    raise BadVideo("it has a single frame; at least two are needed")
                last = len(timing) - 1
                check_complete(video, float(timing.time(last)), float(timing.duration(last)))
        except BadVideo as error:
            raise ValueError(f"{source}: {error}") from error
        check_writable(target, SUFFIXES)
        if target.exists() and target.samefile(source):
            raise ValueError(f"{target} is the input itself: choose another --output")
        suffix = target.suffix.lower()
        with av.open(str(source), metadata_errors="ignore") as container:
            streams = container.streams
            metadata = {k.lower(): v for k, v in container.metadata.items() if k.lower() not in _FORMAT_METADATA}
            has_sound = bool(len(streams.audio))
            sound_starts = [s.start_time * s.time_base for s in streams.audio if s.start_time is not None]
            others = [f"stream {s.index} ({s.type})" for s in streams if s.type != "audio" and s != streams.video[0]]
        if has_sound and slow_motion:
            warnings.warn("the sound is not copied: it would end before the slow motion", stacklevel=2)
            has_sound = False
        elif has_sound and suffix == ".gif":
            warnings.warn("the sound is not copied: a .gif has none", stacklevel=2)
            has_sound = False
        if others:
            warnings.warn(f"not copied: {', '.join(others)}", stacklevel=2)
        origin = min([start, *sound_starts]) if has_sound else start
        plan = cls(source, target, timing, start - origin, origin, factor, slow_motion, metadata, has_sound)
        if suffix == ".gif" and plan.shortest_duration < Fraction(1, MAX_GIF_FPS):
            raise ValueError(
                f"{target} would have {float(plan.fps):.4g} frames a second, but a .gif shows at most {MAX_GIF_FPS}; "
                "write an .mp4"
            )
        return plan


def interpolate_file(
    interpolator: Interpolator,
    plan: Plan,
    keep_frames: bool = True,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write `plan.target`, which appears when it is complete.

    Memory does not grow with the length of the video, except for a .gif.

    Args:
      interpolator: the model.
      plan: source and target.
      keep_frames: see `Interpolator.interpolate`.
      on_progress: called with the number of finished frames of the source and their total.

    Raises:
      ValueError: a frame cannot be decoded; no file is written.
    """
    factor_passes(plan.factor, interpolator.factors)
    pending: list[int] = []  # indices of the frames that have been decoded but not written

    def images() -> Iterator[np.ndarray]:
        for time, frame in video.frames():
            pending.append(plan.timing.nearest(time))
            yield video.full_image(frame)

    with ExitStack() as stack:
        video = stack.enter_context(VideoFile(str(plan.source)))
        writer = sound = None
        total = len(plan.timing)
        try:
            for frames in interpolator.interpolate(images(), plan.factor, keep_frames):
                if writer is None:
                    _warn_of_size(frames.shape[1:3], interpolator)
                    writer = VideoWriter(plan.target, plan.fps, frames.shape[1:3], plan.metadata, plan.tick)
                    stack.enter_context(writer)
                    if plan.has_sound:
                        sound = stack.enter_context(Sound(plan.source, writer.container, plan.origin))
                index = pending.pop(0)
                times = plan.times(index, pending[0] if pending else None)
                if sound is not None:
                    sound.write_until(times[0])
                writer.append(frames, times)
                on_progress(index + 1, total)
            if sound is not None:
                sound.write_until(None)
        except BadVideo as error:
            raise ValueError(f"{plan.source}: {error}") from error


def _warn_of_size(size: tuple[int, int], interpolator: Interpolator) -> None:
    trained = interpolator.resolution
    if size != (trained, trained):
        warnings.warn(
            f"the model was trained on frames of {trained}x{trained}; those of the video are {size[1]}x{size[0]} "
            "(width x height)",
            stacklevel=2,
        )


def default_output(source: str, factor: int, slow_motion: bool) -> Path:
    """Name the target after the source: `clip.mov` -> `clip-x4.mp4` or `clip-slow-x4.mp4`; .webm and .gif stay."""
    path = Path(source)
    suffix = path.suffix.lower() if path.suffix.lower() in (".webm", ".gif") else ".mp4"
    return path.with_name(f"{path.stem}-{'slow-' if slow_motion else ''}x{factor}{suffix}")
