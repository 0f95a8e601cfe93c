"""The real clips that distances of generated videos are taken to: rendered clips of a world, or video files.

A source extracts the features of those of its clips that have none on disk yet, and returns the keys of all.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.progress import Progress

from videogen_jax.data.corpora import FolderCorpus
from videogen_jax.data.decoding import BadVideo
from videogen_jax.data.entries import BadItem, Item
from videogen_jax.data.excerpts import WINDOWS, Excerpt, read_excerpt
from videogen_jax.data.skipped import SkippedEntries, TooManySkipped
from videogen_jax.data.workers import Workers
from videogen_jax.data.world import Evaluation
from videogen_jax.metrics.captions import Captions, checked_fields
from videogen_jax.metrics.published import DISTANCE_NETWORKS, PublishedMeasures
from videogen_jax.metrics.ucf101 import read_list

SIZES = ("model", "own")


class RealClips(Protocol):
    """A source of real clips."""

    def extract_features(self, published: PublishedMeasures, num_frames: int, fps: float, resolution: int) -> list[str]:
        """Extract the features of the clips, and return the clips' keys.

        Args:
          num_frames, fps, resolution: of the videos that the model generates.
        """

    def summary(self) -> dict[str, Any]:
        """Return what `metrics.json` says of the clips."""


def build_real_clips(config: Any, captions: Captions) -> RealClips | None:
    """Return the real clips of an evaluation's config; None if it names no folder.

    Raises:
      ValueError: names the field that is wrong, before any video is read.
    """
    if captions.world is not None:
        return RenderedClips(captions.world, config.real_clips, captions.split, config.seed)
    if not config.real.folder:
        return None
    fields = checked_fields("real", config.real.to_dict(), VideoFolder)
    return VideoFolder(**fields, seed=config.seed, described=captions.described)


class RenderedClips:
    """Rendered clips, with the frames and the resolution of the model.

    Args:
      world: of the clips.
      count: clips.
      split, seed: of them.
    """

    def __init__(self, world: Evaluation, count: int, split: str, seed: int):
        self.world, self.count, self.split, self.seed = world, count, split, seed

    def extract_features(self, published: PublishedMeasures, num_frames: int, fps: float, resolution: int) -> list[str]:
        if not published.networks:
            return []
        size = f"{num_frames}x{resolution}"
        keys = [f"real-{self.split}-{self.seed}-{size}-{number:05d}" for number in range(self.count)]
        for number, key in enumerate(keys):
            if not published.has(key):
                clip = self.world.render(self.seed, number, self.split, num_frames, resolution)
                published.add([key], [clip.caption], [clip.frames])
        return keys

    def summary(self) -> dict[str, Any]:
        return {}


class VideoFolder:
    """Video files of a folder and the folders within it, one clip of each, which ones and in which order by the seed.

    Args:
      folder: of the files.
      only_listed: a list such as UCF-101's trainlist01.txt, of paths within the folder; "" for all files.
      only_described: only the files whose names, without the suffix, are in `described`.
      clips: how many; 0 for one of every file.
      num_frames: of a clip; None: as many as the model generates.
      fps: frames a second; None: the model's; 0: the file's own frames one after another.
      window: "random", "first" or "middle", the position of the clip in its file.
      size: "model": the centre, cut to a square of the model's resolution; "own": whole frames as in the file.
      max_skipped_fraction: of the clips; more files that cannot be used are an error. Up to that fraction another file
        takes the place of each.
      num_workers, time_limit: decoding processes (0: one for each core), seconds that one file may take.
      seed: of the choice and order of files, and of random windows.
      described: ids of the videos that the captions were written for, or None.
    """

    def __init__(
        self,
        folder: str,
        only_listed: str,
        only_described: bool,
        clips: int,
        num_frames: int | None,
        fps: float | None,
        window: str,
        size: str,
        max_skipped_fraction: float,
        num_workers: int,
        time_limit: float,
        *,
        seed: int,
        described: frozenset[str] | None,
    ):
        for name, value, allowed in (("window", window, WINDOWS), ("size", size, SIZES)):
            if value not in allowed:
                raise ValueError(f"config.real.{name} is {value!r}, but must be one of {', '.join(allowed)}")
        for name, value, least in (
            ("clips", clips, 0),
            ("num_frames", num_frames, 1),
            ("fps", fps, 0),
            ("num_workers", num_workers, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"config.real.{name} is {value}, but must be at least {least}")
        if clips == 1:
            raise ValueError("config.real.clips is 1, but a distance takes at least 2")
        if time_limit <= 0:
            raise ValueError(f"config.real.time_limit is {time_limit}, but must be above 0 seconds")
        if not Path(folder).expanduser().is_dir():
            raise ValueError(f"config.real.folder is {folder}, but there is no such folder")
        self.folder, self.seed = folder, seed
        self.num_frames, self.fps, self.window, self.size = num_frames, fps, window, size
        self._workers, self._time_limit = num_workers or os.cpu_count() or 1, time_limit
        self._corpus = FolderCorpus(folder, "videos", labelled=False)
        if only_described and described is None:
            raise ValueError("config.real.only_described is set, but these captions describe no videos")
        candidates = self._candidates(only_listed, described if only_described else None)
        self.count = clips or len(candidates)
        if self.count < 2 or len(candidates) < self.count:
            which = "that the captions describe " if only_described else ""
            which = f"of {only_listed} {which}" if only_listed else which
            raise ValueError(
                f"config.real.folder {folder} has {len(candidates)} videos {which}where {max(self.count, 2)} are "
                "needed: lower config.real.clips (0 for as many as there are)"
            )
        self._skipped = SkippedEntries(max_skipped_fraction, self.count)
        self._bad: dict[str, str] = {}
        self._order = [candidates[k] for k in np.random.default_rng(seed).permutation(len(candidates))]
        self._used = 0
        self._excerpt: dict[str, Any] = {}

    def _candidates(self, listed: str, described: frozenset[str] | None) -> list[int]:
        """Return the numbers of the files, in the folder's order, from which the seed draws."""
        numbers = range(len(self._corpus))
        if described is not None:
            numbers = [k for k in numbers if os.path.basename(self._corpus.id(k)) in described]
        if not listed:
            return list(numbers)
        by_name = {self._corpus.id(k): k for k in numbers}
        by_name |= {os.path.basename(name): k for name, k in by_name.items()}
        chosen, missing = {}, []
        for line, path in read_list(listed, "config.real.only_listed"):
            name = os.path.splitext(path)[0]
            number = by_name.get(name, by_name.get(os.path.basename(name)))
            if number is None:
                missing.append(f"{path} (line {line})")
            else:
                chosen[number] = None
        if missing and described is None:
            raise ValueError(
                f"config.real.only_listed is {listed}: {len(missing)} of its videos are not in {self.folder}, "
                f"the first {missing[0]}"
            )
        return sorted(chosen)

    def extract_features(self, published: PublishedMeasures, num_frames: int, fps: float, resolution: int) -> list[str]:
        """Extract features as `RealClips.extract_features`.

        Raises:
          ValueError: more files than `max_skipped_fraction` allows cannot be used, or too few are left.
        """
        networks = [network for network in published.networks if network in DISTANCE_NETWORKS]
        if not networks:
            return []
        excerpt = Excerpt(
            num_frames=self.num_frames or num_frames,
            fps=None if self.fps == 0 else self.fps or fps,
            resolution=resolution if self.size == "model" else None,
            window=self.window,
        )
        self._excerpt = {"frames": excerpt.num_frames, "fps": excerpt.fps, "size": excerpt.resolution or "own"}
        keys: list[str] = []
        order = iter(self._order)
        with Progress() as progress, Workers(read_excerpt, self._workers, self._time_limit) as workers:
            task = progress.add_task("real clips", total=self.count)
            while len(keys) < self.count:
                numbers = list(itertools.islice(order, self.count - len(keys)))
                if not numbers:
                    raise ValueError(
                        f"config.real.folder {self.folder}: only {len(keys)} videos can be used where {self.count} are "
                        f"needed (first of the others: {next(f'{k}: {why}' for k, why in self._bad.items())})"
                    )
                for key in self._extract_batch(numbers, excerpt, published, networks, workers):
                    keys.append(key)
                    progress.advance(task)
        self._used = len(keys)
        return keys

    def summary(self) -> dict[str, Any]:
        return {
            **self._excerpt,
            "clips": self._used,
            "skipped": [{"id": k, "reason": why} for k, why in self._bad.items()],
        }

    def _extract_batch(
        self,
        numbers: list[int],
        excerpt: Excerpt,
        published: PublishedMeasures,
        networks: list[str],
        workers: Workers,
    ) -> Iterator[str]:
        """Yield the keys of the files that can be used; a file whose features are on disk is not read again."""
        listed, tasks = [], []
        for number in numbers:
            name = self._corpus.id(number)
            try:
                item = self._corpus.item(number)
                seed = _number(self.seed, name)
                key = _key(item, excerpt, seed)
                has_features = published.has(key, networks)
                listed.append((name, key, has_features))
                if not has_features:
                    tasks.append((item, excerpt, seed))
            except (BadItem, OSError) as error:
                listed.append((name, "", False))
                tasks.append(BadVideo(str(error)))
        videos = workers.map(tasks)
        for name, key, has_features in listed:
            frames = None if has_features else next(videos)
            if isinstance(frames, BadVideo):
                self._bad[name] = str(frames)
            try:
                self._skipped.add({"id": name, "reason": self._bad[name]} if name in self._bad else None)
            except TooManySkipped as error:
                raise ValueError(f"config.real.folder {self.folder}: {error}") from error
            if name in self._bad:
                continue
            if frames is not None:
                published.add([key], [""], [frames], networks)
            yield key


def _number(seed: int, name: str) -> int:
    """Return the seed of the window in a file: it does not depend on the other files."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")


def _key(item: Item, excerpt: Excerpt, seed: int) -> str:
    """Return the key of an excerpt of a file, which changes with the file's path, size and time of change."""
    file = os.stat(item.path)
    identity = [item.id, file.st_size, file.st_mtime_ns, vars(excerpt), seed]
    return "real-" + hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
