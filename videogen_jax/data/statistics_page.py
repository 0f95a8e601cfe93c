"""Statistics of a prepared data set, counted while it is written and reported as a Markdown page."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from videogen_jax.data.clips import Scan
from videogen_jax.data.skipped import reason_kind

MOTION_EDGES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)
BAR_WIDTH = 40  # characters


class Tally:
    """The counts of one shard, or of several.

    Attributes:
      counts: numbers of videos, records, and the counts of `Scan`.
      seconds: how much video was read.
      motion: number of clips in each interval of MOTION_EDGES.
      fps: number of clips for each frame rate.
      moments: name of a latents array -> number, sum and sum of squares of its values.
    """

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self.motion = [0] * (len(MOTION_EDGES) - 1)
        self.fps: Counter[str] = Counter()
        self.moments: dict[str, list[float]] = {}

    def add_scan(self, scan: Scan) -> None:
        self.counts.update(videos=1, empty=not scan.clips, **scan.counts)
        self.seconds += scan.seconds

    def add_record(self, record: Mapping[str, Any]) -> None:
        self.counts.update(records=1)
        self.fps[f"{record['fps']:g}"] += 1
        self.motion[int(np.searchsorted(MOTION_EDGES, record["motion"], side="right")) - 1] += 1
        for name, value in record.items():
            if name.startswith("latents"):
                value = value.astype(np.float64)
                new = (value.size, float(value.sum()), float((value**2).sum()))
                old = self.moments.get(name, (0, 0.0, 0.0))
                self.moments[name] = [a + b for a, b in zip(old, new, strict=True)]

    def to_json(self) -> dict[str, Any]:
        return {
            "records": self.counts["records"],
            "counts": dict(sorted(self.counts.items())),
            "seconds": self.seconds,
            "motion": self.motion,
            "fps": dict(sorted(self.fps.items())),
            "moments": self.moments,
        }

    @classmethod
    def merged(cls, summaries: Iterable[Mapping[str, Any]]) -> Self:
        """Sum up tallies in the form of `to_json`."""
        total = cls()
        for summary in summaries:
            total.counts.update(summary["counts"])
            total.seconds += summary["seconds"]
            total.motion = [a + b for a, b in zip(total.motion, summary["motion"], strict=True)]
            total.fps.update(summary["fps"])
            for name, moments in summary["moments"].items():
                old = total.moments.get(name, [0, 0.0, 0.0])
                total.moments[name] = [a + b for a, b in zip(old, moments, strict=True)]
        return total


def statistics_page(name: str, entries: int, tally: Tally, skipped: Sequence[Mapping[str, Any]]) -> str:
    """Write the page in Markdown.

    Args:
      name: name of the data set.
      entries: number of entries of the corpus.
      tally: counts of the whole data set.
      skipped: the bad entries, with their `reason`.
    """
    counts = tally.counts
    lines = [
        f"# {name}",
        "",
        "| | |",
        "| --- | --- |",
        f"| entries of the corpus | {entries} |",
        f"| skipped as unusable (skipped.jsonl) | {len(skipped)} |",
        f"| read | {counts['videos']}, {tally.seconds / 3600:.2f} hours |",
        f"| of these without a clip | {counts['empty']} |",
        f"| scene changes | {counts['cuts']} |",
        f"| clips dropped as still | {counts['still']} |",
        f"| scenes too short for a clip | {counts['short']} |",
        f"| **clips** | **{counts['records']}** |",
        "",
    ]
    reasons = Counter(reason_kind(entry["reason"]) for entry in skipped)
    if reasons:
        lines += ["## Why entries were skipped", "", "| reason | entries |", "| --- | --- |"]
        lines += [f"| {reason} | {count} |" for reason, count in sorted(reasons.items(), key=lambda x: (-x[1], x[0]))]
        lines.append("")
    ranges = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(MOTION_EDGES)]
    lines += ["## Motion", "", "Mean change between neighbouring frames, in levels of 255.", ""]
    lines += [*_bars(ranges, tally.motion), "", "## Frames a second", ""]
    lines += [*_bars(list(tally.fps), list(tally.fps.values())), "", "## Latents", ""]
    lines += ["| | mean | standard deviation |", "| --- | --- | --- |"]
    for array, (count, total, squares) in sorted(tally.moments.items()):
        mean = total / count
        lines.append(f"| {array} | {mean:.4f} | {math.sqrt(max(0.0, squares / count - mean**2)):.4f} |")
    return "\n".join(lines) + "\n"


def _bars(labels: Sequence[str], counts: Sequence[int]) -> list[str]:
    longest = max([1, *counts])
    rows = [
        f"| {label} | {n} | {'#' * round(BAR_WIDTH * n / longest)} |" for label, n in zip(labels, counts, strict=True)
    ]
    return ["| | clips | |", "| --- | --- | --- |", *rows]
