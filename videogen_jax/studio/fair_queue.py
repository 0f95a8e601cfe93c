"""A queue in which no client waits behind all the jobs of another."""

import collections
from typing import Generic, TypeVar

from videogen_jax.studio.clients import Client

T = TypeVar("T")
_REMEMBERED = 1024  # addresses and clients whose last turn is remembered


class FairQueue(Generic[T]):
    """A queue that serves clients in turn. Not thread-safe.

    The next item belongs to the address that was served least recently; of its clients, to the one that was served
    least recently; of that client's items it is the oldest. Addresses come before clients so that discarding its cookie
    gains a client nothing.
    """

    def __init__(self):
        self._waiting: list[tuple[Client, T]] = []  # in order of arrival
        self._turn = 0
        self._last_turn: collections.OrderedDict[Client | str, int] = collections.OrderedDict()

    def push(self, client: Client, item: T) -> None:
        """Append an item of a client."""
        self._waiting.append((client, item))

    def pop(self) -> T:
        """Remove and return the item whose turn it is.

        Raises:
          IndexError: the queue is empty.
        """
        entry = self._next(self._waiting, self._last_turn)
        self._waiting.remove(entry)
        self._turn += 1
        self._record_turn(self._last_turn, entry[0], self._turn)
        while len(self._last_turn) > _REMEMBERED:
            self._last_turn.popitem(last=False)
        return entry[1]

    def remove(self, item: T) -> bool:
        """Remove an item; return False if it is not in the queue."""
        for entry in self._waiting:
            if entry[1] is item:
                self._waiting.remove(entry)
                return True
        return False

    def order(self) -> list[T]:
        """Return the items in the order in which `pop` will return them if no more are pushed."""
        waiting, last_turn, turn = list(self._waiting), self._last_turn.copy(), self._turn
        items = []
        while waiting:
            entry = self._next(waiting, last_turn)
            waiting.remove(entry)
            turn += 1
            self._record_turn(last_turn, entry[0], turn)
            items.append(entry[1])
        return items

    def count(self, client: Client | None = None, address: str | None = None) -> int:
        """Return the number of items of a client, or of all clients at an address."""
        return sum(owner == client or owner.address == address for owner, _ in self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    @staticmethod
    def _next(waiting: list[tuple[Client, T]], last_turn: dict[Client | str, int]) -> tuple[Client, T]:
        if not waiting:
            raise IndexError("the queue is empty")
        # On ties min returns the first, which is the oldest.
        return min(waiting, key=lambda entry: (last_turn.get(entry[0].address, 0), last_turn.get(entry[0], 0)))

    @staticmethod
    def _record_turn(last_turn: collections.OrderedDict[Client | str, int], client: Client, turn: int) -> None:
        for key in (client.address, client):
            last_turn[key] = turn
            last_turn.move_to_end(key)
