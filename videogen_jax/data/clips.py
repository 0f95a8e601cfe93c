"""Clips out of videos: cut at scene changes, sampled at a frame rate, measured for motion. Runs in worker processes."""

import dataclasses
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from videogen_jax.data.decoding import BadVideo, FrameArray, Framing, VideoFile, at_times, check_distinct
from videogen_jax.data.entries import TFDS_SUFFIX, Item
from videogen_jax.data.tfds_records import read_frames as read_tfds_frames
from videogen_jax.video_io import read_image

THUMBNAIL = 32  # side of the pictures that frames are compared by
CUT_THRESHOLD = 25.0  # mean absolute change of RGB (0 to 255) between neighbouring frames that may be a cut
CUT_RATIO = 3.0  # a cut changes the picture by this many times what the frames before it did
RECENT = 8  # frames before


@dataclasses.dataclass(frozen=True)
class ClipRules:
    """What is taken out of a video.

    Attributes:
      num_frames: frames of a clip; 1 for still images.
      fps: frame rates; each video is sampled at one of them, drawn by `seed` and the video's id.
      resolution: side of the frames in pixels.
      cut_threshold: mean absolute change of RGB (0 to 255) between neighbouring frames that may be a scene change.
      min_motion: clips whose motion is below are dropped as still. The motion is the mean absolute change of RGB
        (0 to 255) between neighbouring frames of the clip, on thumbnails.
      max_clips: clips taken from one video at most, from its beginning on; 0 for all.
      max_seconds: how much of a video is read at most; 0 for all.
      seed: of what is drawn.
    """

    num_frames: int
    fps: tuple[float, ...]
    resolution: int
    cut_threshold: float = CUT_THRESHOLD
    min_motion: float = 0.4
    max_clips: int = 0
    max_seconds: float = 0.0
    seed: int = 0

    def __post_init__(self):
        for name in ("num_frames", "resolution"):
            if getattr(self, name) < 1:
                raise ValueError(f"config.clips.{name} is {getattr(self, name)}; it must be at least 1")
        if not self.fps or min(self.fps) <= 0:
            raise ValueError(f"config.clips.fps is {self.fps}; it must be one or more rates above 0")

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers that depend on `seed` and the video's id alone."""
        return np.random.default_rng((self.seed, zlib.crc32(name.encode())))


@dataclasses.dataclass(frozen=True)
class Clip:
    """frames uint8 `(T, R, R, 3)`, start in seconds, frames a second (0 for a still image), motion (see ClipRules)."""

    frames: np.ndarray
    start: float
    fps: float
    motion: float


@dataclasses.dataclass(frozen=True)
class Scan:
    """The clips of one video.

    Attributes:
      seconds: how much of the video was read.
      counts: `cuts` found, `still` clips dropped, scenes too `short` for a clip.
    """

    clips: list[Clip]
    seconds: float
    counts: dict[str, int]


def read_clips(item: Item, rules: ClipRules) -> Scan:
    """All clips of an entry.

    Raises:
      BadVideo: it cannot be read, is damaged or not whole, or is shorter than one clip.
    """
    if item.is_image:
        return Scan([Clip(image_frames(item, Framing(rules.resolution)), 0.0, 0.0, 0.0)], 0.0, {})
    with open_video(item) as video:
        fps = float(rules.rng(item.id).choice(rules.fps))
        return scan(video, fps, rules)


def open_video(item: Item) -> VideoFile | FrameArray:
    """The frames of a video entry. BadVideo: it cannot be opened."""
    if item.suffix == TFDS_SUFFIX:
        return FrameArray(read_tfds_frames(item), item.fps)
    return VideoFile(item.open())


def image_frames(item: Item, framing: Framing) -> np.ndarray:
    """A still image as a clip of one frame, uint8 `(1, R, R, 3)`. BadVideo: it cannot be read."""
    try:
        image = read_image(item.open())
    except ValueError as error:
        raise BadVideo(str(error)) from error
    frame = FrameArray(image[None], 1.0)
    return frame.picture(image, framing)[None]


class CutDetector:
    """Finds scene changes in a row of frames, of which it is shown thumbnails of side THUMBNAIL.

    Args:
      threshold: mean absolute change of RGB (0 to 255) between neighbours that may be a scene change.
    """

    def __init__(self, threshold: float = CUT_THRESHOLD):
        self.threshold = threshold
        self._last: np.ndarray | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)

    def __call__(self, thumbnail: np.ndarray) -> bool:
        """Whether a new scene begins with the next frame, uint8 `(THUMBNAIL, THUMBNAIL, 3)`."""
        thumbnail, last = thumbnail.astype(np.int16), self._last
        self._last = thumbnail
        if last is None:
            return False
        change = float(np.abs(thumbnail - last).mean())
        recent = self._recent
        cut = bool(recent and change > self.threshold and change > CUT_RATIO * np.mean(recent))
        recent.append(change)
        return cut


def scan(video: VideoFile | FrameArray, fps: float, rules: ClipRules) -> Scan:
    """Reads a video from beginning to end, once, and keeps no more of it than its clips."""
    counts = {"cuts": 0, "still": 0, "short": 0}
    clips: list[Clip] = []
    run, used = _Run(0), False
    end = gap = 0.0

    def in_scenes() -> Iterator[tuple[float, tuple[Any, np.ndarray, int]]]:
        nonlocal end, gap
        scene, is_cut = 0, CutDetector(rules.cut_threshold)
        for time, frame in video.frames():
            if rules.max_seconds and time > rules.max_seconds:
                return
            thumbnail = video.thumbnail(frame, THUMBNAIL)
            scene += is_cut(thumbnail)
            gap, end = time - end, time
            yield time, (frame, thumbnail, scene)
        counts["cuts"] = scene

    times = (index / fps for index in range(2**31))
    for index, (time, (frame, thumbnail, scene)) in enumerate(at_times(in_scenes(), times)):
        if scene != run.scene:
            counts["short"] += not used
            run, used = _Run(scene), False
        run.add(index / fps, time, thumbnail, video.picture(frame, Framing(rules.resolution)))
        if len(run.pictures) < rules.num_frames:
            continue
        check_distinct(run.chosen, run.times)
        if rules.num_frames > 1 and run.motion < rules.min_motion:
            counts["still"] += 1
        else:
            clips.append(Clip(np.stack(run.pictures), run.times[0], fps, run.motion))
            if len(clips) == rules.max_clips:
                return Scan(clips, end, counts)
        run, used = _Run(scene), True
    check_whole(video, end, gap, rules.max_seconds)
    if not (clips or counts["still"] or counts["cuts"]):
        needed = (rules.num_frames - 1) / fps
        raise BadVideo(f"shorter than asked: its frames end at {end:.2f} s, but a clip lasts {needed:.2f} s")
    counts["short"] += not used
    return Scan(clips, end + gap, counts)


def check_whole(video: VideoFile | FrameArray, end: float, gap: float, max_seconds: float = 0.0) -> None:
    """BadVideo if the last frame, at `end` seconds, comes well before the end that the file states."""
    if max_seconds and end + gap >= max_seconds:
        return
    if video.duration is not None and end + gap < video.duration - max(0.5, 2 * gap):
        raise BadVideo(f"not whole: its frames end at {end + gap:.2f} s of {video.duration:.2f} s")


class _Run:
    """Neighbouring samples of one scene, on their way to a clip."""

    def __init__(self, scene: int):
        self.scene = scene
        self.times: list[float] = []
        self.chosen: list[float] = []
        self.pictures: list[np.ndarray] = []
        self._thumbnails: list[np.ndarray] = []

    def add(self, wanted: float, time: float, thumbnail: np.ndarray, picture: np.ndarray) -> None:
        self.times.append(wanted)
        self.chosen.append(time)
        self.pictures.append(picture)
        self._thumbnails.append(thumbnail.astype(np.int16))

    @property
    def motion(self) -> float:
        if len(self._thumbnails) < 2:
            return 0.0
        return float(np.abs(np.diff(np.stack(self._thumbnails), axis=0)).mean())
