"""Overlapping windows over a stream of unknown length."""

import itertools
from collections.abc import Iterable, Iterator

_END = object()


def sliding_windows(items: Iterable, size: int, before: int, after: int) -> Iterator[tuple[list, int, int]]:
    """Yield overlapping windows of a stream, so that each item is processed with its context on both sides.

    Args:
      items: the stream; at most two windows are held in memory.
      size: items per window; more than before + after, unless there are no more items than `size`.
      before, after: number of items at the two ends of a window that serve as context only, except at the ends of the
        stream.

    Yields: (window, first, end), where `window[first:end]` are the items to process, each item once. The last window
    has full size too, and overlaps more with the one before it; only if there are fewer items than `size`, the single
    window is shorter.
    """
    items = iter(items)
    window = list(itertools.islice(items, size))
    first = 0
    while window:
        following = next(items, _END)
        if following is _END:
            yield window, first, len(window)
            return
        end = size - after
        yield window, first, end
        new_items = [following, *itertools.islice(items, end - before - 1)]
        window = [*window, *new_items][-size:]
        first = end - len(new_items)
