"""The position of a training run in its data, independent of the number of processes and threads that read it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
from absl import logging


@dataclasses.dataclass(frozen=True)
class DataOrder:
    """The settings that determine the order of the examples; processes, threads and workers do not (see `make_loader`).

    Attributes:
      seed: seed of the shuffle.
      batch_size: examples per batch over all processes.
      examples: number of examples of each source.
      image_fraction: share of the batches that come from the second source.
    """

    seed: int
    batch_size: int
    examples: tuple[int, ...]
    image_fraction: float = 0.0


def position(loader: grain.DatasetIterator, local_batch_size: int, order: DataOrder) -> dict[str, Any]:
    """Return a loader's position for JSON: the number of batches drawn from each source, and the order of the examples.

    Args:
      loader: from `make_loader`.
      local_batch_size: examples of each batch that this process draws.
      order: the order of the examples.
    """
    states = _source_states(loader.get_state())
    return {"batches": [state["next_index"] // local_batch_size for state in states], **dataclasses.asdict(order)}


def restore_position(
    loader: grain.DatasetIterator, local_batch_size: int, order: DataOrder, saved: dict[str, Any]
) -> None:
    """Continue a loader from a saved position, whatever the number of processes was when it was saved.

    With another batch size the loader continues at the same example; with another share of images, each source
    continues at its own position.

    Args:
      loader: a new one, from `make_loader`.
      local_batch_size: examples of each batch that this process draws.
      order: the present order of the examples.
      saved: from `position`.

    Raises:
      ValueError: with this order the run cannot continue at the same example; the message names the field.
    """
    former = DataOrder(saved["seed"], saved["batch_size"], tuple(saved["examples"]), saved["image_fraction"])
    remedy = "; set it back, or train in another --workdir"
    if former.seed != order.seed:
        raise ValueError(
            f"config.seed is {order.seed}, but this run shuffles its examples with seed {former.seed}{remedy}"
        )
    if len(former.examples) != len(order.examples):
        raise ValueError(
            f"config.image_fraction is {order.image_fraction}, but this run has {former.image_fraction}; "
            f"image batches can be neither added nor removed later{remedy}"
        )
    for field, now, then in zip(("config.data", "config.image_data"), order.examples, former.examples, strict=False):
        if now != then:
            raise ValueError(
                f"{field} gives {now} examples, but this run shuffles {then}: their order cannot be continued{remedy}"
            )
    batches = _rescaled(saved["batches"], former.batch_size, order.batch_size)
    if former != order:
        logging.info("The data continue at the same example, now with %s (before: %s)", order, former)
    states = [{"next_index": count * local_batch_size} for count in batches]
    if len(states) == 1:
        loader.set_state(states[0])
    else:
        loader.set_state({"parents": states, "index": sum(batches), "stop": False})


def _rescaled(batches: Sequence[int], then: int, now: int) -> list[int]:
    """Convert numbers of batches of size `then` to the numbers of batches of size `now` with as many examples."""
    for count in batches:
        if count * then % now:
            raise ValueError(
                f"config.batch_size is {now}, but this run has drawn {count} batches of {then}, which are not a whole "
                f"number of batches of {now}; choose one that divides {count * then}, or {then} as before"
            )
    return [count * then // now for count in batches]


def _source_states(state: Any) -> list[dict[str, int]]:
    return state.get("parents", [state])
