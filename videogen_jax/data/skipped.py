"""The account of entries that could not be used."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

ENOUGH = 200  # entries after which the fraction of bad ones is taken for the corpus's
SHOWN = 5  # reasons in a summary


class TooManySkipped(ValueError):
    """More entries are bad than were to be put up with; the message sums up why."""

    def __init__(self, bad: int, seen: int, limit: float, examples: Sequence[Mapping[str, Any]]):
        self.bad, self.seen = bad, seen
        reasons = Counter(kind(entry["reason"]) for entry in examples)
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(SHOWN))
        first = f" (first: {examples[0]['id']}: {examples[0]['reason']})" if examples else ""
        super().__init__(
            f"{bad} of {seen} entries cannot be used, more than max_skipped_fraction {limit:g} allows: {listed}{first}"
        )


class SkippedEntries:
    """Counts bad entries and raises when they are too many.

    Args:
      limit: the fraction of entries that may be bad.
      total: entries there are in all.
    """

    def __init__(self, limit: float, total: int):
        if not 0.0 <= limit <= 1.0:
            raise ValueError(f"config.max_skipped_fraction is {limit}; it must be between 0 and 1")
        self._limit, self._total = limit, total
        self.seen = self.bad = 0
        self._examples: list[Mapping[str, Any]] = []

    def add_finished(self, seen: int, bad: Sequence[Mapping[str, Any]]) -> None:
        """Takes in what an earlier run found."""
        self.seen += seen
        self.bad += len(bad)
        self._examples += bad

    def add(self, bad: Mapping[str, Any] | None) -> None:
        """Takes in one entry: None if it is good, else its id and the reason.

        Raises:
          TooManySkipped: once the limit is passed for the entries in all, or clearly for those seen so far.
        """
        self.seen += 1
        if bad is None:
            return
        self.bad += 1
        self._examples.append(bad)
        hopeless = self.bad > self._limit * self._total
        if hopeless or (self.seen >= ENOUGH and self.bad > 2 * self._limit * self.seen):
            raise TooManySkipped(self.bad, self.seen, self._limit, self._examples)


def kind(reason: str) -> str:
    """A reason without its particulars, to count by."""
    return re.split(r"[:(]| at \d", reason)[0].strip()
