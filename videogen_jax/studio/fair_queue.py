"""A queue in which nobody waits behind another's many jobs."""

import collections
from typing import Generic, TypeVar

from videogen_jax.studio.clients import Client

T = TypeVar("T")
_REMEMBERED = 1024  # turns that are kept in mind of addresses and clients


class FairQueue(Generic[T]):
    """Items of clients, taken in turns. Not to be used from two threads at once.

    Next is the address that was served longest ago, of its clients the one that was served longest ago, and of its
    items the oldest.

    Turns go to addresses first, so that a client gains nothing by throwing its cookie away.
    """

    def __init__(self):
        self._waiting: list[tuple[Client, T]] = []  # in the order of arrival
        self._turn = 0
        self._served: collections.OrderedDict[Client | str, int] = collections.OrderedDict()

    def push(self, client: Client, item: T) -> None:
        self._waiting.append((client, item))

    def pop(self) -> T:
        """Takes out the item whose turn it is. IndexError: there is none."""
        entry = self._next(self._waiting, self._served)
        self._waiting.remove(entry)
        self._turn += 1
        self._serve(self._served, entry[0], self._turn)
        while len(self._served) > _REMEMBERED:
            self._served.popitem(last=False)
        return entry[1]

    def remove(self, item: T) -> bool:
        """Takes an item out of the line; False if it is not in it."""
        for entry in self._waiting:
            if entry[1] is item:
                self._waiting.remove(entry)
                return True
        return False

    def order(self) -> list[T]:
        """The items in the order in which they are taken if no others come."""
        waiting, served, turn = list(self._waiting), self._served.copy(), self._turn
        items = []
        while waiting:
            entry = self._next(waiting, served)
            waiting.remove(entry)
            turn += 1
            self._serve(served, entry[0], turn)
            items.append(entry[1])
        return items

    def count(self, client: Client | None = None, address: str | None = None) -> int:
        """The items of a client, or of an address."""
        return sum(owner == client or owner.address == address for owner, _ in self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    @staticmethod
    def _next(waiting: list[tuple[Client, T]], served: dict[Client | str, int]) -> tuple[Client, T]:
        if not waiting:
            raise IndexError("the queue is empty")
        # min takes the first of equals, which is the oldest.
        return min(waiting, key=lambda entry: (served.get(entry[0].address, 0), served.get(entry[0], 0)))

    @staticmethod
    def _serve(served: collections.OrderedDict[Client | str, int], client: Client, turn: int) -> None:
        for key in (client.address, client):
            served[key] = turn
            served.move_to_end(key)
