"""Counting corpus entries that cannot be used, and stopping when there are too many."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MIN_SAMPLE = 200  # entries after which the share of bad ones is taken as representative of the corpus
MAX_REASONS = 5  # reasons in an error message


class TooManySkipped(ValueError):
    """An error for a corpus with more bad entries than allowed; the message summarizes the reasons.

    Args:
      bad: number of bad entries.
      examined: number of entries that were read.
      limit: the share of bad entries that is allowed.
      examples: the bad entries, with `id` and `reason`.
    """

    def __init__(self, bad: int, examined: int, limit: float, examples: Sequence[Mapping[str, Any]]):
        self.bad, self.examined = bad, examined
        reasons = Counter(reason_kind(entry["reason"]) for entry in examples)
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(MAX_REASONS))
        first = f" (first: {examples[0]['id']}: {examples[0]['reason']})" if examples else ""
        super().__init__(
            f"{bad} of {examined} entries cannot be used, more than max_skipped_fraction {limit:g} allows: "
            f"{listed}{first}"
        )


class SkippedEntries:
    """A count of bad entries that raises when there are too many.

    Args:
      limit: the share of entries that may be bad, from 0 to 1.
      total: number of entries of the corpus.

    Attributes:
      examined: number of entries counted so far.
      bad: how many of these are bad.
    """

    def __init__(self, limit: float, total: int):
        if not 0.0 <= limit <= 1.0:
            raise ValueError(f"config.max_skipped_fraction is {limit}; it must be between 0 and 1")
        self._limit, self._total = limit, total
        self.examined = self.bad = 0
        self._examples: list[Mapping[str, Any]] = []

    def add_finished(self, examined: int, bad: Sequence[Mapping[str, Any]]) -> None:
        """Add the counts of an earlier run."""
        self.examined += examined
        self.bad += len(bad)
        self._examples += bad

    def add(self, bad: Mapping[str, Any] | None) -> None:
        """Count one entry.

        Args:
          bad: the `id` and `reason` of a bad entry; None for a good one.

        Raises:
          TooManySkipped: more entries are bad than the limit allows for the whole corpus, or, of at least MIN_SAMPLE
            entries, more than twice its share.
        """
        self.examined += 1
        if bad is None:
            return
        self.bad += 1
        self._examples.append(bad)
        over_total = self.bad > self._limit * self._total
        if over_total or (self.examined >= MIN_SAMPLE and self.bad > 2 * self._limit * self.examined):
            raise TooManySkipped(self.bad, self.examined, self._limit, self._examples)


def reason_kind(reason: str) -> str:
    """Return a reason without its details, by which reasons are counted."""
    return re.split(r"[:(]| at \d", reason)[0].strip()
