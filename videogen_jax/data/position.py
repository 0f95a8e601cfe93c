"""Where a run stands in its data, independent of how many processes and threads read them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
from absl import logging


@dataclasses.dataclass(frozen=True)
class DataOrder:
    """What the order of the examples depends on. Processes, threads and workers are not among it: see `make_loader`.

    Attributes:
      seed: of the shuffle.
      batch_size: over all processes.
      examples: the number of examples of each source.
      image_fraction: share of the batches from the second source.
    """

    seed: int
    batch_size: int
    examples: tuple[int, ...]
    image_fraction: float = 0.0


def position(loader: grain.DatasetIterator, rows: int, order: DataOrder) -> dict[str, Any]:
    """As JSON: how many batches have been drawn from each source, and the order that they came in.

    Args:
      loader: from `make_loader`.
      rows: of a batch that this process draws.
      order: of the examples.
    """
    states = _sources(loader.get_state())
    return {"batches": [state["next_index"] // rows for state in states], **dataclasses.asdict(order)}


def go_to(loader: grain.DatasetIterator, rows: int, order: DataOrder, saved: dict[str, Any]) -> None:
    """Has `loader` go on where `saved`, from `position`, says, whatever the number of processes was then.

    With another batch size it goes on at the same example, with other shares of images in both sources where they are.

    Raises:
      ValueError: with this `order` the run cannot go on at the same example; names the field.
    """
    former = DataOrder(saved["seed"], saved["batch_size"], tuple(saved["examples"]), saved["image_fraction"])
    back = "; set it back, or train in another --workdir"
    if former.seed != order.seed:
        raise ValueError(
            f"config.seed is {order.seed}, but this run shuffles its examples with seed {former.seed}{back}"
        )
    if len(former.examples) != len(order.examples):
        raise ValueError(
            f"config.image_fraction is {order.image_fraction}, but this run has {former.image_fraction}; "
            f"image batches can neither be added nor left out later{back}"
        )
    for field, now, then in zip(("config.data", "config.image_data"), order.examples, former.examples, strict=False):
        if now != then:
            raise ValueError(
                f"{field} gives {now} examples, but this run shuffles {then}: its order cannot go on{back}"
            )
    batches = _rescaled(saved["batches"], former.batch_size, order.batch_size)
    if former != order:
        logging.info("The data go on at the same example as before, now with %s (before: %s)", order, former)
    states = [{"next_index": count * rows} for count in batches]
    if len(states) == 1:
        loader.set_state(states[0])
    else:
        loader.set_state({"parents": states, "index": sum(batches), "stop": False})


def _rescaled(batches: Sequence[int], then: int, now: int) -> list[int]:
    """As many batches of the size `now` as hold the examples of `batches` of the size `then`."""
    for count in batches:
        if count * then % now:
            raise ValueError(
                f"config.batch_size is {now}, but this run has drawn {count} batches of {then}, which are not a whole "
                f"number of batches of {now}; choose one that divides {count * then}, or {then} as before"
            )
    return [count * then // now for count in batches]


def _sources(state: Any) -> list[dict[str, int]]:
    return state.get("parents", [state])
