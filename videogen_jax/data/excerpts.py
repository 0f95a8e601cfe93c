"""One clip of a video file, for metrics: from its beginning, its middle or a random position, square or full-frame.

Runs in worker processes, like all code that reads videos.
"""

import dataclasses

import numpy as np

from videogen_jax.data.decoding import BadVideo, Framing, VideoFile, read_frames
from videogen_jax.data.entries import Item

WINDOWS = ("random", "first", "middle")


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """Which clip is taken from a video.

    Attributes:
      num_frames: at least 1.
      fps: frames per second, above 0; None for consecutive frames of the file.
      resolution: side in pixels of the central square crop; None for full frames at the file's size.
      window: position in the video, one of WINDOWS.
    """

    num_frames: int
    fps: float | None
    resolution: int | None
    window: str


def read_excerpt(item: Item, excerpt: Excerpt, seed: int) -> np.ndarray:
    """Read the clip's frames, uint8 `(T, H, W, 3)`; the position of a random window depends on `seed` alone.

    Raises:
      BadVideo: the file cannot be read, is too short, or has too low a frame rate.
    """
    framing = None if excerpt.resolution is None else Framing(excerpt.resolution)
    position = {"first": 0.0, "middle": 0.5, "random": np.random.default_rng(seed).uniform()}[excerpt.window]
    first_error: BadVideo | None = None
    for attempt in dict.fromkeys((position, 0.0)):  # a file may end or be damaged before the last of its packets
        try:
            with VideoFile(item.open()) as video:
                return read_frames(video, _times(video, excerpt, attempt), framing)
        except BadVideo as error:
            first_error = first_error or error
    raise first_error


def _times(video: VideoFile, excerpt: Excerpt, position: float) -> np.ndarray:
    """Return the times of the frames in seconds; `position` runs from 0, the beginning, to 1, the last that fit."""
    timing, count = video.timing(), excerpt.num_frames
    if excerpt.fps is None:
        if len(timing) < count:
            raise BadVideo(f"too short: it has {len(timing)} frames, but {count} are needed")
        first = round(position * (len(timing) - count))
        return np.array([float(timing.time(index)) for index in range(first, first + count)])
    times = np.arange(count) / excerpt.fps
    latest_start = max(0.0, float(timing.time(len(timing) - 1)) - times[-1])
    return position * latest_start + times
