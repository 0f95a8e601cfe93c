"""Batches from a random-access source, read with grain: shuffled, endless, split over processes and resumable."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np


class Source(Protocol):
    """The training examples, of equal shapes, accessed by index.

    A source may have a method `caption(index)`, which gives the caption of an example in sample videos.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, np.ndarray]: ...


class _BatchRows(grain.MapDataset):
    """The examples at certain positions (`rows`) of each batch of an endless data set."""

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
    """Make an endless iterator of this process's part of each batch; all examples are reshuffled every epoch.

    The processes together draw exactly the batches that a single process would draw. A source with a method
    `draw(index, rng)` provides a new view of each example every epoch, the same in every run; as many examples are
    requested at once as keep its `num_workers` busy.

    Args:
      source: the training examples.
      batch_size: examples per batch over all processes.
      seed: seed of the shuffle and of `draw`.
      rows: positions in each batch that this process draws (`mesh.local_examples`); None for all.
      num_threads: threads that read ahead; their number does not change the order.
      prefetch: maximum number of batches read ahead; at most 2 for a source with `draw`, whose examples may be large.
      images: a second source, whose examples fill whole batches of their own in between.
      image_fraction: share of those batches.

    Returns: an iterator of dicts of arrays `(len(rows), ...)` with `get_state` and `set_state`.

    Raises:
      ValueError: there are fewer examples than one batch needs, or `image_fraction` is not between 0 and 1.
    """
    rows = range(batch_size) if rows is None else rows
    local_batch_size = len(rows)

    def batches(source: Source) -> grain.IterDataset:
        if len(source) < batch_size:
            raise ValueError(f"config.data gives {len(source)} examples, fewer than one batch of {batch_size}")
        threads, ahead = num_threads, prefetch
        if hasattr(source, "draw"):
            threads, ahead = max(num_threads, source.num_workers + 2), min(prefetch, 2)
            indices = grain.MapDataset.range(len(source)).shuffle(seed=seed).repeat()
            dataset = indices.seed(seed).random_map(lambda index, rng: source.draw(int(index), rng))
        else:
            dataset = grain.MapDataset.source(source).shuffle(seed=seed).repeat()
        local = _BatchRows(dataset, batch_size, rows)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead * local_batch_size, threads))
        return local.to_iter_dataset(options).batch(local_batch_size, drop_remainder=True)

    if images is None:
        return iter(batches(source))
    if not 0.0 < image_fraction < 1.0:
        raise ValueError(f"config.image_fraction is {image_fraction}; with config.image_data it must be within (0, 1)")
    both = [batches(source), batches(images)]
    return iter(grain.IterDataset.mix(both, weights=[1.0 - image_fraction, image_fraction]))


def take(source: Source, indices: Any) -> dict[str, np.ndarray]:
    """Stack the examples at `indices` into one batch, in that order."""
    examples = [source[int(i)] for i in indices]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
