"""Clips and frames read from video files during training: for small data sets, and for stages that need pixels."""

import dataclasses
import json
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from videogen_jax.data.clips import image_frames, open_video
from videogen_jax.data.decoding import BadVideo, Framing, read_frames
from videogen_jax.data.entries import BadItem, Corpus, Item
from videogen_jax.data.skipped import SkippedEntries
from videogen_jax.data.workers import Workers
from videogen_jax.weights.tokenizer import tokenize


@dataclasses.dataclass(frozen=True)
class Window:
    """A clip at a random position of a video.

    Attributes:
      num_frames: frames per clip; 1 for still images.
      fps: frame rates; one is drawn among those for which the video is long enough and has enough frames.
      resolution: side of the square frames in pixels.
      crop: whether the square is at a random position along the longer side rather than in the centre.
      flip: whether to mirror half of the clips, all frames of a clip alike. Not for captions that mention left and
        right.
    """

    num_frames: int
    fps: tuple[float, ...]
    resolution: int
    crop: bool = False
    flip: bool = False

    def __post_init__(self):
        if self.num_frames < 1:
            raise ValueError(f"config.data.num_frames is {self.num_frames}; it must be at least 1")
        if not self.fps or min(self.fps) <= 0:
            raise ValueError(f"config.data.fps is {self.fps}; it must be one or more rates above 0")


def read_window(item: Item, window: Window, seed: int) -> tuple[np.ndarray, float]:
    """Read a window at a random position, which depends on `seed` alone.

    Returns: the frames, uint8 `(T, R, R, 3)`, and their rate (0 for a still image).

    Raises:
      BadVideo: the entry cannot be read, or is too short at each of the window's rates.
    """
    rng = np.random.default_rng(seed)
    rates, start = rng.permutation(window.fps), rng.uniform()  # start: from 0, the beginning, to 1, the last that fits
    crop_position, mirrored = rng.uniform(), rng.uniform() < 0.5
    framing = Framing(window.resolution, crop_position if window.crop else 0.5, mirrored and window.flip)
    if item.is_image:
        return image_frames(item, framing), 0.0

    def read(fps: float, start: float) -> tuple[np.ndarray, float]:
        times = np.arange(window.num_frames) / fps
        with open_video(item) as video:
            latest = max(0.0, (video.duration or 0.0) - times[-1] - 1.0 / fps)
            return read_frames(video, times + start * latest, framing), fps

    first_error = None
    for fps in rates:  # the first for which the file is long enough and has enough frames
        for attempt in (start, 0.0):  # a file may end or be damaged before its stated end
            try:
                return read(float(fps), attempt)
            except BadVideo as error:
                first_error = first_error or error
    raise first_error


class VideoClips:
    """A corpus as a source of training examples, with a new window of each video every epoch.

    An example has `video` uint8 `(T, R, R, 3)`, `fps` and, with a tokenizer, `tokens` int32 `(L,)`. With `images`, it
    has `images` uint8 `(R, R, 3)` instead of `video` and `fps`.

    Files are decoded in worker processes. An entry that cannot be used is recorded once in `skipped_file` and replaced
    by the next usable entry of the corpus, so the examples do not depend on the number of processes.

    Args:
      corpus: the videos and captions.
      window: which clips are taken.
      tokenizer: for the captions, or None.
      images: whether examples are single frames; needs windows of one frame.
      num_workers: number of decoding processes.
      time_limit: seconds that decoding one entry may take.
      max_skipped_fraction: the run ends when a larger share of the corpus cannot be used.
      skipped_file: receives a line for each bad entry; entries in it are not tried again.
      read: function that reads a window.
    """

    def __init__(
        self,
        corpus: Corpus,
        window: Window,
        *,
        tokenizer: Any = None,
        images: bool = False,
        num_workers: int = 1,
        time_limit: float = 60.0,
        max_skipped_fraction: float = 0.05,
        skipped_file: str | Path | None = None,
        read: Any = read_window,
    ):
        if images and window.num_frames != 1:
            raise ValueError(f"config.data.num_frames is {window.num_frames}; for single frames it must be 1")
        self._corpus, self._window, self._tokenizer, self._images = corpus, window, tokenizer, images
        self.num_workers = num_workers
        self._make_workers = lambda: Workers(read, num_workers, time_limit)
        self._workers: Workers | None = None
        self._lock = threading.Lock()
        self._skipped = SkippedEntries(max_skipped_fraction, len(corpus))
        self._bad: set[int] = set()
        self._file = None if skipped_file is None else Path(skipped_file)
        if self._file is not None and self._file.exists():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                self._skip(json.loads(line), recorded=True)

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Read the same window of an entry on every call."""
        return self.draw(index, np.random.default_rng(index))

    def caption(self, index: int) -> str | None:
        """Return the caption, if any, of entry `index`, or of the entry that is known to replace it."""
        indices = ((index + offset) % len(self) for offset in range(len(self)))
        return self._corpus.item(next(k for k in indices if k not in self._bad)).caption

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Read a window, drawn by `rng`, of entry `index` or of the next entry that can be used.

        Raises:
          TooManySkipped: more of the corpus is bad than `max_skipped_fraction` allows.
          ValueError: no entry can be used, or there is a tokenizer but no captions.
        """
        seed = int(rng.integers(2**63))
        for offset in range(len(self)):
            current = (index + offset) % len(self)
            if current in self._bad:
                continue
            try:
                item = self._corpus.item(current)
                if self._tokenizer is not None and item.caption is None:
                    raise ValueError("config.data.corpus has no captions, but the stage reads text")
                workers = self._running_workers()
                frames, fps = workers.result(workers.submit(item, self._window, seed))
            except (BadItem, BadVideo) as error:
                self._skip({"index": current, "id": self._corpus.id(current), "reason": str(error)})
                continue
            with self._lock:
                self._skipped.add(None)
            example = {"images": frames[0]} if self._images else {"video": frames, "fps": np.float32(fps)}
            if self._tokenizer is not None:
                example["tokens"] = tokenize(self._tokenizer, [item.caption], warn=False)[0]
            return example
        raise ValueError("none of the entries of config.data.corpus can be used")

    def _running_workers(self) -> Workers:
        with self._lock:
            if self._workers is None:
                self._workers = self._make_workers()
                weakref.finalize(self, self._workers.close)
            return self._workers

    def _skip(self, bad: dict[str, Any], recorded: bool = False) -> None:
        with self._lock:
            if bad["index"] in self._bad:
                return
            self._bad.add(bad["index"])
            if not recorded:
                logging.warning("skipped %s: %s", bad["id"], bad["reason"])
                if self._file is not None:
                    self._file.parent.mkdir(parents=True, exist_ok=True)
                    with self._file.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(bad, ensure_ascii=False) + "\n")
            self._skipped.add(bad)
