"""Which videos of an evaluation its report shows: for each attribute those that fail, then the best."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from videogen_jax.shapes import world
from videogen_jax.shapes.reader import ATTRIBUTES

Record = Mapping[str, Any]  # of one video, as `metrics.json` has them under `prompts.results`


class Cases(NamedTuple):
    """Of one attribute: in how many videos it counts, in how many it is wrong, and the records to be shown."""

    attribute: str
    count: int
    wrong: int
    failures: tuple[Record, ...]
    best: tuple[Record, ...]


def said(record: Record, attribute: str) -> str | None:
    """The attribute as the prompt has it; None where it has none."""
    return getattr(world.parse_caption(record["prompt"]), attribute)


def confusion(records: Iterable[Record], attribute: str) -> Counter[tuple[str, str | None]]:
    """How often each pair of what the prompt says and what was read in the video came; read is None for nothing."""
    return Counter((said(record, attribute), record["read"][attribute]) for record in _with(records, attribute))


def choose_cases(records: Sequence[Record], limit: int) -> list[Cases]:
    """The cases of each attribute that counts in some record, the attribute that fails most first.

    Failures: each pair of said and read comes once before any comes twice, the frequent first; of a pair the worst
    first, which is the one with most attributes wrong, then with the largest warping error. Best: each value of the
    attribute once before any twice, in the opposite order.

    Args:
      records: each with `prompt`, `right` and `read`.
      limit: of the failures of an attribute, and of its best.
    """
    ranked = sorted(records, key=_badness)
    result = []
    for attribute in ATTRIBUTES:
        mine = _with(ranked, attribute)
        if not mine:
            continue
        failures = [record for record in reversed(mine) if not record["right"][attribute]]
        pairs = confusion(failures, attribute)
        worst = _in_turn(
            failures,
            lambda record, attribute=attribute: (said(record, attribute), record["read"][attribute]),
            lambda pair, pairs=pairs: -pairs[pair],
        )
        best = _in_turn(
            [record for record in mine if record["right"][attribute]],
            lambda record, attribute=attribute: said(record, attribute),
            lambda _: 0,
        )
        result.append(Cases(attribute, len(mine), len(failures), tuple(worst[:limit]), tuple(best[:limit])))
    return sorted(result, key=lambda cases: -cases.wrong / cases.count)


def wrong_attributes(record: Record) -> list[str]:
    return [name for name, is_right in record["right"].items() if not is_right]


def _with(records: Iterable[Record], attribute: str) -> list[Record]:
    return [record for record in records if attribute in record["right"]]


def _badness(record: Record) -> tuple[Any, ...]:
    """Orders videos from good to bad; one in which no shape was seen has no warping error and is last of its kind."""
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
    """One record of each kind, then the second of each, and so on; in a turn by priority, then as they come."""
    seen: Counter[Hashable] = Counter()
    turns = []
    for record in records:
        turns.append((seen[kind(record)], priority(kind(record))))
        seen[kind(record)] += 1
    return [records[i] for i in sorted(range(len(records)), key=lambda i: turns[i])]
