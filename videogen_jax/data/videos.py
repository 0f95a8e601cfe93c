"""Clips and frames read from video files while training goes on: for small sets, and for stages that need pixels."""

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
    """A clip at a random place of a video.

    Attributes:
      num_frames, resolution: of the clip.
      fps: of the clip; of several one is drawn among those that the video is long enough and has frames enough for.
      crop: cut the square at a random place, not in the centre.
      flip: mirror every other clip, all of its frames alike. Captions that speak of left and right forbid it.
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
    """Frames uint8 `(T, R, R, 3)` and their rate (0 for a still image). What is random depends on `seed` alone.

    Raises:
      BadVideo: the entry cannot be read, or is shorter than the window at each of its rates.
    """
    rng = np.random.default_rng(seed)
    rates, at, place, mirrored = rng.permutation(window.fps), rng.uniform(), rng.uniform(), rng.uniform() < 0.5
    framing = Framing(window.resolution, place if window.crop else 0.5, mirrored and window.flip)
    if item.is_image:
        return image_frames(item, framing), 0.0

    def read(fps: float, share: float) -> tuple[np.ndarray, float]:
        times = np.arange(window.num_frames) / fps
        with open_video(item) as video:
            latest = max(0.0, (video.duration or 0.0) - times[-1] - 1.0 / fps)
            return read_frames(video, times + share * latest, framing), fps

    failure = None
    for fps in rates:  # the first for which the file is long enough and has frames enough
        for share in (at, 0.0):  # a file may end, or break, before the end that it states
            try:
                return read(float(fps), share)
            except BadVideo as error:
                failure = failure or error
    raise failure


class VideoClips:
    """A corpus as a source of training examples, a new window of each video every epoch.

    Examples: `video` uint8 `(T, R, R, 3)`, `fps`, and with a tokenizer `tokens` int32 `(L,)`; with `images`, which
    needs windows of one frame, `images` uint8 `(R, R, 3)` in the place of `video`.

    Files are decoded in processes of their own. An entry that cannot be used is named once, in `skipped_file`, and
    the next one of the corpus stands in for it, so what is drawn does not depend on the number of processes.

    Args:
      corpus: where the files are.
      window: what is taken of each.
      tokenizer: for the captions, or None.
      images: give single frames.
      num_workers, time_limit: decoding processes, and seconds that one entry may take in them.
      max_skipped_fraction: of the corpus; more bad entries than that end the run.
      skipped_file: receives a line for each bad entry; those in it are not tried again.
      read: stands in for `read_window` in tests.
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
                self._note(json.loads(line), known=True)

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Always the same window."""
        return self.draw(index, np.random.default_rng(index))

    def caption(self, index: int) -> str | None:
        """The caption, if there is one, of entry `index`, or of the one known to stand in for it."""
        used = (at % len(self) for at in range(index, index + len(self)) if at % len(self) not in self._bad)
        return self._corpus.item(next(used)).caption

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A window drawn by `rng` of entry `index`, or of the next that can be used.

        Raises:
          TooManySkipped: more of the corpus is bad than was to be put up with.
        """
        seed = int(rng.integers(2**63))
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            if at in self._bad:
                continue
            try:
                item = self._corpus.item(at)
                if self._tokenizer is not None and item.caption is None:
                    raise ValueError("config.data.corpus has no captions, but the stage reads text")
                workers = self._started()
                frames, fps = workers.result(workers.submit(item, self._window, seed))
            except (BadItem, BadVideo) as error:
                self._note({"index": at, "id": self._corpus.id(at), "reason": str(error)})
                continue
            with self._lock:
                self._skipped.add(None)
            example = {"images": frames[0]} if self._images else {"video": frames, "fps": np.float32(fps)}
            if self._tokenizer is not None:
                example["tokens"] = tokenize(self._tokenizer, [item.caption], warn=False)[0]
            return example
        raise ValueError("no entry of the corpus can be used")

    def _started(self) -> Workers:
        with self._lock:
            if self._workers is None:
                self._workers = self._make_workers()
                weakref.finalize(self, self._workers.close)
            return self._workers

    def _note(self, bad: dict[str, Any], known: bool = False) -> None:
        with self._lock:
            if bad["index"] in self._bad:
                return
            self._bad.add(bad["index"])
            if not known:
                logging.warning("skipped %s: %s", bad["id"], bad["reason"])
                if self._file is not None:
                    self._file.parent.mkdir(parents=True, exist_ok=True)
                    with self._file.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(bad, ensure_ascii=False) + "\n")
            self._skipped.add(bad)
