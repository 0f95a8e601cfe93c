"""Clips cut from videos at scene changes, sampled at a frame rate and measured for motion. Runs in worker processes."""

import dataclasses
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from videogen_jax.data.decoding import BadVideo, FrameArray, Framing, VideoFile, check_distinct, nearest_frames
from videogen_jax.data.entries import TFDS_SUFFIX, Item
from videogen_jax.data.tfds_records import read_frames as read_tfds_frames
from videogen_jax.video_io import read_image

THUMBNAIL = 32  # side in pixels of the thumbnails by which frames are compared
CUT_THRESHOLD = 25.0  # mean absolute change of RGB (0 to 255) between neighbouring frames that may be a cut
CUT_RATIO = 3.0  # the change at a cut is at least this many times the mean change of the frames before it
RECENT = 8  # number of frame changes in that mean


@dataclasses.dataclass(frozen=True)
class ClipRules:
    """Which clips are taken from a video.

    Attributes:
      num_frames: frames per clip; 1 for still images.
      fps: frame rates. Each video is sampled at one of them, drawn from `seed` and the video's id.
      resolution: side of the square frames in pixels.
      cut_threshold: mean absolute change of RGB (0 to 255) between neighbouring frames above which there may be a scene
        change.
      min_motion: clips with less motion are dropped as still. Motion is the mean absolute change of RGB (0 to 255)
        between neighbouring frames of the clip, measured on thumbnails.
      max_clips: maximum number of clips per video, counted from its beginning; 0 for no limit.
      max_seconds: how much of a video is read; 0 for all of it.
      seed: seed of all random choices.
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
        """Return a generator that depends on `seed` and `name` (such as a video's id) alone."""
        return np.random.default_rng((self.seed, zlib.crc32(name.encode())))


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
      frames: uint8 `(T, R, R, 3)`.
      start: position in the video, in seconds.
      fps: frames per second; 0 for a still image.
      motion: see `ClipRules.min_motion`.
    """

    frames: np.ndarray
    start: float
    fps: float
    motion: float


@dataclasses.dataclass(frozen=True)
class Scan:
    """The clips of one video.

    Attributes:
      clips: in the order of their times.
      seconds: how much of the video was read.
      counts: number of scene changes (`cuts`), of clips dropped as `still`, and of scenes too `short` for a clip.
    """

    clips: list[Clip]
    seconds: float
    counts: dict[str, int]


def read_clips(item: Item, rules: ClipRules) -> Scan:
    """Read all clips of a corpus entry.

    Raises:
      BadVideo: the entry cannot be read, is damaged or truncated, or is shorter than one clip.
    """
    if item.is_image:
        return Scan([Clip(image_frames(item, Framing(rules.resolution)), 0.0, 0.0, 0.0)], 0.0, {})
    with open_video(item) as video:
        fps = float(rules.rng(item.id).choice(rules.fps))
        return scan(video, fps, rules)


def open_video(item: Item) -> VideoFile | FrameArray:
    """Open a video entry.

    Raises:
      BadVideo: the entry cannot be opened.
    """
    if item.suffix == TFDS_SUFFIX:
        return FrameArray(read_tfds_frames(item), item.fps)
    return VideoFile(item.open())


def image_frames(item: Item, framing: Framing) -> np.ndarray:
    """Read a still image as a clip of one frame, uint8 `(1, R, R, 3)`.

    Raises:
      BadVideo: the image cannot be read.
    """
    try:
        image = read_image(item.open())
    except ValueError as error:
        raise BadVideo(str(error)) from error
    return FrameArray(image[None], 1.0).square_image(image, framing)[None]


class CutDetector:
    """A detector of scene changes, called with the thumbnail of each frame of a video in turn.

    A cut is a change above `threshold` that is also `CUT_RATIO` times the mean of the last `RECENT` changes, so that
    fast motion is not taken for one.

    Args:
      threshold: mean absolute change of RGB (0 to 255) between neighbouring frames above which there may be a cut.
    """

    def __init__(self, threshold: float = CUT_THRESHOLD):
        self.threshold = threshold
        self._previous: np.ndarray | None = None
        self._recent_changes: deque[float] = deque(maxlen=RECENT)

    def __call__(self, thumbnail: np.ndarray) -> bool:
        """Return whether a new scene begins with this frame, uint8 `(THUMBNAIL, THUMBNAIL, 3)`."""
        thumbnail, previous = thumbnail.astype(np.int16), self._previous
        self._previous = thumbnail
        if previous is None:
            return False
        change = float(np.abs(thumbnail - previous).mean())
        recent = self._recent_changes
        is_cut = bool(recent and change > self.threshold and change > CUT_RATIO * np.mean(recent))
        recent.append(change)
        return is_cut


def scan(video: VideoFile | FrameArray, fps: float, rules: ClipRules) -> Scan:
    """Cut a video into clips in one pass, holding no more of it in memory than its clips.

    Raises:
      BadVideo: the video is damaged or truncated, or is shorter than one clip.
    """
    counts = {"cuts": 0, "still": 0, "short": 0}
    clips: list[Clip] = []
    partial, scene_has_clip = _PartialClip(0), False
    end = gap = 0.0  # time of the last frame that was read, and its distance to the one before, in seconds

    def frames_with_scenes() -> Iterator[tuple[float, tuple[Any, np.ndarray, int]]]:
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

    sample_times = (index / fps for index in range(2**31))
    for index, (time, (frame, thumbnail, scene)) in enumerate(nearest_frames(frames_with_scenes(), sample_times)):
        if scene != partial.scene:
            counts["short"] += not scene_has_clip
            partial, scene_has_clip = _PartialClip(scene), False
        partial.add(index / fps, time, thumbnail, video.square_image(frame, Framing(rules.resolution)))
        if len(partial.images) < rules.num_frames:
            continue
        check_distinct(partial.frame_times, partial.sample_times)
        if rules.num_frames > 1 and partial.motion < rules.min_motion:
            counts["still"] += 1
        else:
            clips.append(Clip(np.stack(partial.images), partial.sample_times[0], fps, partial.motion))
            if len(clips) == rules.max_clips:
                return Scan(clips, end, counts)
        partial, scene_has_clip = _PartialClip(scene), True
    check_complete(video, end, gap, rules.max_seconds)
    if not (clips or counts["still"] or counts["cuts"]):
        needed = (rules.num_frames - 1) / fps
        raise BadVideo(f"too short: its last frame is at {end:.2f} s, but a clip spans {needed:.2f} s")
    counts["short"] += not scene_has_clip
    return Scan(clips, end + gap, counts)


def check_complete(video: VideoFile | FrameArray, end: float, gap: float, max_seconds: float = 0.0) -> None:
    """Check that a video does not end well before the duration that its file states.

    Args:
      video: the video.
      end: time of its last frame, in seconds.
      gap: time between its last two frames, in seconds.
      max_seconds: how much of the video was read; 0 for all of it.

    Raises:
      BadVideo: the video is truncated.
    """
    if max_seconds and end + gap >= max_seconds:
        return
    if video.duration is not None and end + gap < video.duration - max(0.5, 2 * gap):
        raise BadVideo(f"truncated: its frames end at {end + gap:.2f} s of {video.duration:.2f} s")


class _PartialClip:
    """Consecutive samples of one scene that do not yet make up a clip."""

    def __init__(self, scene: int):
        self.scene = scene
        self.sample_times: list[float] = []
        self.frame_times: list[float] = []
        self.images: list[np.ndarray] = []
        self._thumbnails: list[np.ndarray] = []

    def add(self, sample_time: float, frame_time: float, thumbnail: np.ndarray, image: np.ndarray) -> None:
        self.sample_times.append(sample_time)
        self.frame_times.append(frame_time)
        self.images.append(image)
        self._thumbnails.append(thumbnail.astype(np.int16))

    @property
    def motion(self) -> float:
        if len(self._thumbnails) < 2:
            return 0.0
        return float(np.abs(np.diff(np.stack(self._thumbnails), axis=0)).mean())
