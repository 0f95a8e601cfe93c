"""Which videos of an evaluation its report shows: for each attribute those that fail, then the best."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from videogen_jax.data.world import Evaluation

Record = Mapping[str, Any]  # of one video, as `metrics.json` has them under `prompts.results`; see `add_expected`


class Cases(NamedTuple):
    """One attribute: how many prompts name it, in how many videos it is wrong, and the records to be shown."""

    attribute: str
    count: int
    wrong: int
    failures: tuple[Record, ...]
    best: tuple[Record, ...]


def add_expected(records: Iterable[Record], world: Evaluation) -> list[Record]:
    """Return the records that have readings, with `expected`: the value that the prompt names of each attribute."""
    return [
        {**record, "expected": world.parse(record["prompt"])}
        for record in records
        if "right" in record and "read" in record
    ]


def confusion(records: Iterable[Record], attribute: str) -> Counter[tuple[str, str | None]]:
    """Count the pairs of the value that the prompt names and the value read in the video, None for nothing."""
    return Counter((record["expected"][attribute], record["read"][attribute]) for record in _with(records, attribute))


def choose_cases(records: Sequence[Record], limit: int) -> list[Cases]:
    """Choose the cases of each attribute that some prompt names, the attribute that fails most first.

    Failures: each pair of expected and read comes once before any comes twice, the frequent first; of a pair the worst
    first, which is the one with most attributes wrong, then with the largest warping error. Best: each value of the
    attribute once before any twice, in the opposite order.

    Args:
      records: of `add_expected`.
      limit: of the failures of an attribute, and of its best.
    """
    ranked = sorted(records, key=_badness)
    result = []
    for attribute in ranked[0]["expected"] if ranked else ():
        judged = _with(ranked, attribute)
        if not judged:
            continue
        failures = [record for record in reversed(judged) if not record["right"][attribute]]
        pairs = confusion(failures, attribute)
        worst = _in_turn(
            failures,
            lambda record, attribute=attribute: (record["expected"][attribute], record["read"][attribute]),
            lambda pair, pairs=pairs: -pairs[pair],
        )
        best = _in_turn(
            [record for record in judged if record["right"][attribute]],
            lambda record, attribute=attribute: record["expected"][attribute],
            lambda _: 0,
        )
        result.append(Cases(attribute, len(judged), len(failures), tuple(worst[:limit]), tuple(best[:limit])))
    return sorted(result, key=lambda cases: -cases.wrong / cases.count)


def wrong_attributes(record: Record) -> list[str]:
    return [name for name, is_right in record["right"].items() if not is_right]


def _with(records: Iterable[Record], attribute: str) -> list[Record]:
    return [record for record in records if attribute in record["right"]]


def _badness(record: Record) -> tuple[Any, ...]:
    """Return a key that sorts videos from good to bad; one in which nothing was recognised has no warping error."""
    measured = record.get("consistency", {})
    error, fidelity = measured.get("warping_error"), measured.get("reference_psnr")
    return (
        len(wrong_attributes(record)),
        math.inf if error is None else error,
        math.inf if fidelity is None else -fidelity,
        record["key"],
    )


def _in_turn(
    records: Sequence[Record], kind: Callable[[Record], Hashable], priority: Callable[[Hashable], int]
) -> list[Record]:
    """Order records: the first of each kind, then the second of each, and so on; in a turn by priority."""
    counts: Counter[Hashable] = Counter()
    turns = []
    for record in records:
        turns.append((counts[kind(record)], priority(kind(record))))
        counts[kind(record)] += 1
    return [records[i] for i in sorted(range(len(records)), key=lambda i: turns[i])]
