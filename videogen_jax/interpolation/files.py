"""The frame rate of a video file raised: frames, time stamps, sound and texts of one file into another."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videogen_jax.data.clips import check_whole
from videogen_jax.data.decoding import BadVideo, Timing, VideoFile
from videogen_jax.interpolation.interpolator import Interpolator, factor_passes
from videogen_jax.interpolation.sound import Sound
from videogen_jax.video_io import MAX_GIF_FPS, VideoWriter, check_writable

SUFFIXES = (".mp4", ".webm", ".gif")
# Of the container itself: the one that is written has its own.
_TECHNICAL = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
_FINEST = 1_000_000  # ticks a second that are asked of a container


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is read off a file before any frame of it is decoded.

    Attributes:
      source, target: the files.
      timing: of the source's frames.
      start: when the first frame is shown, in seconds since the first picture or sound.
      origin: the moment of the source's clock at which its first picture or sound begins.
      factor: what the number of frames is multiplied by.
      slow_motion: whether the frames stay at the source's rate, and last longer, instead.
      metadata: texts of the source's container.
      has_sound: whether sound is to be passed on.
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
        """Frames a second of the target, on average where they are not constant."""
        timing, last = self.timing, len(self.timing) - 1
        rate = timing.rate or last / (timing.time(last) - timing.time(0))
        return rate if self.slow_motion else rate * self.factor

    @property
    def tick(self) -> Fraction | None:
        """Seconds of which all times of the target are multiples; None: the time between two frames."""
        if self.timing.rate is None:
            ticks = self.factor / self.timing.tick
        elif self.start:
            ticks = Fraction(self.fps.numerator)
            ticks *= -(-90_000 // ticks)  # as exact as MPEG's clock where sound and pictures do not begin together
        else:
            return None
        return 1 / min(ticks, Fraction(_FINEST))

    @property
    def shortest(self) -> Fraction:
        """For how many seconds the shortest frame of the target is shown."""
        shortest = min(self.timing.lasts(number) for number in range(len(self.timing)))
        return shortest if self.slow_motion else shortest / self.factor

    def times(self, number: int, following: int | None = None) -> list[Fraction]:
        """When frame `number` of the source and those up to frame `following` are shown in the target, `factor` times.

        Without `following` the frame is shown for as long as `Timing.lasts` says.
        """
        timing = self.timing
        begin = timing.time(number) - timing.time(0)
        lasts = timing.lasts(number) if following is None else timing.time(following) - timing.time(number)
        if self.slow_motion:
            begin, lasts = begin * self.factor, lasts * self.factor
        return [self.start + begin + lasts * k / self.factor for k in range(self.factor)]

    @classmethod
    def of(cls, source: str | os.PathLike, target: str | os.PathLike, factor: int, slow_motion: bool = False) -> "Plan":
        """Reads a file's packets, not its frames, and warns of what the target will not have.

        Raises:
          ValueError: the file is missing, no video, damaged, not whole, or has one frame alone; the target cannot be
            written or does not take that rate.
        """
        source, target = Path(source), Path(target)
        if source.is_dir():
            raise ValueError(f"{source} is a folder, but a video file is to be read")
        try:
            with VideoFile(str(source)) as video:
                timing, start = video.timing(), video.start
                if len(timing) < 2:
                    raise BadVideo("one frame alone, between whose neighbours nothing can be put")
                last = len(timing) - 1
                check_whole(video, float(timing.time(last)), float(timing.lasts(last)))
        except BadVideo as error:
            raise ValueError(f"{source}: {error}") from error
        check_writable(target, SUFFIXES)
        if target.exists() and target.samefile(source):
            raise ValueError(f"{target} is the input itself: give another --output")
        suffix = target.suffix.lower()
        with av.open(str(source), metadata_errors="ignore") as container:
            streams = container.streams
            texts = {k.lower(): v for k, v in container.metadata.items() if k.lower() not in _TECHNICAL}
            heard = len(streams.audio)
            begins = [s.start_time * s.time_base for s in streams.audio if s.start_time is not None]
            others = [f"stream {s.index} ({s.type})" for s in streams if s.type != "audio" and s != streams.video[0]]
        sound = bool(heard)
        if sound and slow_motion:
            warnings.warn("the sound is left out: it would end before the slow motion", stacklevel=2)
            sound = False
        elif sound and suffix == ".gif":
            warnings.warn("the sound is left out: a .gif has none", stacklevel=2)
            sound = False
        if others:
            warnings.warn(f"left out of the file: {', '.join(others)}", stacklevel=2)
        origin = min([start, *begins]) if sound else start
        plan = cls(source, target, timing, start - origin, origin, factor, slow_motion, texts, sound)
        if suffix == ".gif" and plan.shortest < Fraction(1, MAX_GIF_FPS):
            raise ValueError(
                f"{target} would have {float(plan.fps):.4g} frames a second, but a .gif shows at most {MAX_GIF_FPS}; "
                "write an .mp4"
            )
        return plan


def interpolate_file(
    interpolator: Interpolator,
    plan: Plan,
    keep_frames: bool = True,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Writes `plan.target`, which appears when it is whole; memory does not grow with its length, but for a .gif.

    Args:
      interpolator: the model.
      plan: of the file.
      keep_frames: see `Interpolator.interpolate`.
      on_progress: called with frames of the source that are done, and of how many.

    Raises:
      ValueError: a frame cannot be decoded; nothing is written then.
    """
    factor_passes(plan.factor, interpolator.factors)
    numbers: list[int] = []  # of frames read and not yet written

    def pictures() -> Iterator[np.ndarray]:
        for time, frame in video.frames():
            numbers.append(plan.timing.nearest(time))
            yield video.whole(frame)

    with ExitStack() as stack:
        video = stack.enter_context(VideoFile(str(plan.source)))
        writer = sound = None
        total = len(plan.timing)
        try:
            for made in interpolator.interpolate(pictures(), plan.factor, keep_frames):
                if writer is None:
                    _warn_of_size(made.shape[1:3], interpolator)
                    writer = VideoWriter(plan.target, plan.fps, made.shape[1:3], plan.metadata, plan.tick)
                    stack.enter_context(writer)
                    if plan.has_sound:
                        sound = stack.enter_context(Sound(plan.source, writer.container, plan.origin))
                number = numbers.pop(0)
                times = plan.times(number, numbers[0] if numbers else None)
                if sound is not None:
                    sound.write_until(times[0])
                writer.append(made, times)
                on_progress(number + 1, total)
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
    """`clip.mov` -> `clip-x4.mp4`, or `clip-slow-x4.mp4`; .webm and .gif keep their kind."""
    path = Path(source)
    suffix = path.suffix.lower() if path.suffix.lower() in (".webm", ".gif") else ".mp4"
    return path.with_name(f"{path.stem}-{'slow-' if slow_motion else ''}x{factor}{suffix}")
