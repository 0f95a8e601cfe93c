"""Batches from a random-access source, with grain: shuffled, endless, split over processes, resumable."""

from collections.abc import Mapping
from typing import Any, Protocol

import grain
import numpy as np


class Source(Protocol):
    """What grain reads from: examples of equal shapes, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, np.ndarray]: ...


def make_loader(
    source: Source,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    prefetch: int = 8,
) -> grain.DatasetIterator:
    """An endless iterator of batches: a new shuffle each epoch, this process's share of the examples only.

    Args:
      source: examples.
      batch_size: examples a batch over all processes.
      seed: of the shuffle.
      num_threads: threads that read ahead; their number does not change the order.
      prefetch: batches read ahead at most.

    Returns: an iterator of dicts `(batch_size / process_count, ...)` with `get_state` and `set_state`.

    Raises:
      ValueError: if the batch does not divide by the processes or a process's share is smaller than a batch.
    """
    if batch_size % process_count:
        raise ValueError(f"config.batch_size is {batch_size}, which does not divide by {process_count} processes")
    local = batch_size // process_count
    if len(source) // process_count < local:
        raise ValueError(f"config.data gives {len(source)} examples, fewer than one batch of {batch_size}")
    dataset = grain.MapDataset.source(source)[process_index::process_count]
    dataset = dataset.shuffle(seed=seed).repeat().batch(local, drop_remainder=True)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads))
    return iter(dataset.to_iter_dataset(options))


def take(source: Source, indices: Any) -> dict[str, np.ndarray]:
    """The examples at `indices` as one batch, in that order."""
    examples = [source[int(i)] for i in indices]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
