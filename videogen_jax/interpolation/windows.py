"""Overlapping windows over a stream whose length is not known beforehand."""

import itertools
from collections.abc import Iterable, Iterator

_NOTHING_MORE = object()


def sliding(items: Iterable, size: int, before: int, after: int) -> Iterator[tuple[list, int, int]]:
    """Windows of `size` neighbours that share some: what is made of each item then has its context at both sides.

    Args:
      items: any number of them; no more than two windows are held at a time.
      size: more than before + after, unless there are no more items than `size`.
      before, after: how many items at the ends of a window are context alone. At the ends of the stream there is
        nothing to see beyond.

    Yields: (window, first, end): `window[first:end]` are those whose turn it is, each item once. The last window is
    whole too, and shares more with the one before it; a shorter one comes only if there are fewer items than `size`.
    """
    items = iter(items)
    window = list(itertools.islice(items, size))
    first = 0
    while window:
        following = next(items, _NOTHING_MORE)
        if following is _NOTHING_MORE:
            yield window, first, len(window)
            return
        end = size - after
        yield window, first, end
        fresh = [following, *itertools.islice(items, end - before - 1)]
        window = [*window, *fresh][-size:]
        first = end - len(fresh)
