"""Batches from a random-access source, with grain: shuffled, endless, split over processes, resumable."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np


class Source(Protocol):
    """What grain reads from: examples of equal shapes, by index.

    A source may have a method `caption(index)`, with which its examples are shown in sample videos.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, np.ndarray]: ...


class _Rows(grain.MapDataset):
    """Of an endless data set, cut into batches, certain rows of each batch."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, rows: Sequence[int]):
        super().__init__(parent)
        self._batch_size, self._rows = batch_size, tuple(rows)

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * len(self._rows)

    def __getitem__(self, index: int) -> Any:
        batch, row = divmod(index, len(self._rows))
        return self._parent[batch * self._batch_size + self._rows[row]]


def make_loader(
    source: Source,
    batch_size: int,
    seed: int,
    rows: Sequence[int] | None = None,
    num_threads: int = 2,
    prefetch: int = 8,
    images: Source | None = None,
    image_fraction: float = 0.0,
) -> grain.DatasetIterator:
    """An endless iterator of batches: a new shuffle of all examples each epoch, of which this process gets its rows.

    Row by row the processes together draw what one alone would draw. A source with a method `draw(index, rng)`
    gives another view of its examples each epoch, the same in every run; its `num_workers` are kept busy.

    Args:
      source: examples.
      batch_size: examples a batch over all processes.
      seed: of the shuffle and of `draw`.
      rows: which examples of each batch (`mesh.process_rows`); None: all.
      num_threads: threads that read ahead; their number does not change the order.
      prefetch: batches read ahead at most; 2 of a source that draws, whose examples may be large.
      images: a second source, whose examples fill whole batches of their own between the others.
      image_fraction: share of those batches.

    Returns: an iterator of dicts `(len(rows), ...)` with `get_state` and `set_state`.

    Raises:
      ValueError: if there are fewer examples than a batch has.
    """
    rows = range(batch_size) if rows is None else rows
    local = len(rows)

    def batches(some: Source) -> grain.IterDataset:
        if len(some) < batch_size:
            raise ValueError(f"config.data gives {len(some)} examples, fewer than one batch of {batch_size}")
        threads, ahead = num_threads, prefetch
        if hasattr(some, "draw"):
            threads, ahead = max(num_threads, some.num_workers + 2), min(prefetch, 2)
            drawn = grain.MapDataset.range(len(some)).shuffle(seed=seed).repeat()
            dataset = drawn.seed(seed).random_map(lambda index, rng: some.draw(int(index), rng))
        else:
            dataset = grain.MapDataset.source(some).shuffle(seed=seed).repeat()
        shared = _Rows(dataset, batch_size, rows)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead * local, threads))
        return shared.to_iter_dataset(options).batch(local, drop_remainder=True)

    if images is None:
        return iter(batches(source))
    if not 0.0 < image_fraction < 1.0:
        raise ValueError(f"config.image_fraction is {image_fraction}; with config.image_data it is between 0 and 1")
    both = [batches(source), batches(images)]
    return iter(grain.IterDataset.mix(both, weights=[1.0 - image_fraction, image_fraction]))


def take(source: Source, indices: Any) -> dict[str, np.ndarray]:
    """The examples at `indices` as one batch, in that order."""
    examples = [source[int(i)] for i in indices]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
