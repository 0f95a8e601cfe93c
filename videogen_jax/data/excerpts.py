"""One clip out of a video file, for measuring: its beginning, its middle or any place, cut to a square or whole.

Runs in worker processes, like all that reads videos.
"""

import dataclasses

import numpy as np

from videogen_jax.data.decoding import BadVideo, Framing, VideoFile, read_frames
from videogen_jax.data.entries import Item

WINDOWS = ("random", "first", "middle")


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """What is taken of a video.

    Attributes:
      num_frames: at least 1.
      fps: frames a second, above 0; None: the file's own frames, one after another.
      resolution: the centre is cut to a square of this side; None: whole frames in the file's size.
      window: one of WINDOWS, where in the video.
    """

    num_frames: int
    fps: float | None
    resolution: int | None
    window: str


def read_excerpt(item: Item, excerpt: Excerpt, seed: int) -> np.ndarray:
    """The frames, uint8 `(T, H, W, 3)`; the place of a random window depends on `seed` alone.

    Raises:
      BadVideo: the file cannot be read, is shorter than asked, or has too few frames a second.
    """
    framing = None if excerpt.resolution is None else Framing(excerpt.resolution)
    share = {"first": 0.0, "middle": 0.5, "random": np.random.default_rng(seed).uniform()}[excerpt.window]
    failure: BadVideo | None = None
    for place in dict.fromkeys((share, 0.0)):  # a file may end, or break, before the end that its packets state
        try:
            with VideoFile(item.open()) as video:
                return read_frames(video, _times(video, excerpt, place), framing)
        except BadVideo as error:
            failure = failure or error
    raise failure


def _times(video: VideoFile, excerpt: Excerpt, place: float) -> np.ndarray:
    """When the frames are shown, in seconds; `place` is 0 at the beginning and 1 for the last that fit."""
    timing, count = video.timing(), excerpt.num_frames
    if excerpt.fps is None:
        if len(timing) < count:
            raise BadVideo(f"shorter than asked: it has {len(timing)} frames where {count} are needed")
        first = round(place * (len(timing) - count))
        return np.array([float(timing.time(number)) for number in range(first, first + count)])
    times = np.arange(count) / excerpt.fps
    latest = max(0.0, float(timing.time(len(timing) - 1)) - times[-1])
    return place * latest + times
