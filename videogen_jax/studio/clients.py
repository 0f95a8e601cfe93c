"""Who asks: a browser by its cookie, anything else by its address; and how many streams each has open."""

import collections
import contextlib
import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from videogen_jax.studio.errors import Refused

COOKIE = "videogen_client"
COOKIE_BYTES = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # what this machine calls itself
_COOKIE = re.compile(r"[0-9a-f]{32}")


class Client(NamedTuple):
    """An address, and the random number that the server gave a browser there ("" where there is none)."""

    address: str
    cookie: str


def client_of(address: str | None, cookie: str | None) -> Client:
    """The client of a request. The 2**64 addresses of an IPv6 network, which one host may have all of, count as one."""
    address = address or ""
    with contextlib.suppress(ValueError):  # a name, such as that of a test's client
        ip = ipaddress.ip_address(address)
        if ip.version == 6 and ip.ipv4_mapped is None and not ip.is_loopback:
            address = str(ipaddress.ip_network((ip, 64), strict=False))
    return Client(address, cookie if is_cookie(cookie) else "")


def is_cookie(cookie: str | None) -> bool:
    """Whether it is of the form that the server gives."""
    return cookie is not None and _COOKIE.fullmatch(cookie) is not None


class Streams:
    """Counts the open event streams. Used from the event loop's thread alone."""

    def __init__(self, per_client: int, per_address: int):
        self.per_client, self.per_address = per_client, per_address
        self._open: collections.Counter[Client | str] = collections.Counter()

    @contextlib.contextmanager
    def open(self, client: Client) -> Iterator[None]:
        """Holds a stream open. Raises Refused (429) where the client or its address has too many."""
        if self._open[client] >= self.per_client or self._open[client.address] >= self.per_address:
            raise Refused(429, "Too many event streams are open from here: close one, or ask for the job instead.")
        keys = (client, client.address)
        self._open.update(keys)
        try:
            yield
        finally:
            self._open.subtract(keys)
            self._open += collections.Counter()  # forgets those at zero

    def __len__(self) -> int:
        return sum(count for key, count in self._open.items() if isinstance(key, Client))
