"""Clients (a browser is identified by its cookie, anything else by its address) and how much each may have open."""

import collections
import contextlib
import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from videogen_jax.studio.errors import Refused

COOKIE = "videogen_client"
COOKIE_BYTES = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # the names by which this machine addresses itself
TOKEN_VARIABLE = "VIDEOGEN_JAX_TOKEN"
TOKEN_CHARACTERS = 16  # the minimum length
_COOKIE = re.compile(r"[0-9a-f]{32}")


class Client(NamedTuple):
    """The sender of a request.

    Attributes:
      address: IP address, or network for IPv6 (see `client_of`).
      cookie: the random id that the server issued to a browser; "" for a client without one.
    """

    address: str
    cookie: str


def client_of(address: str | None, cookie: str | None) -> Client:
    """Identify the client of a request.

    The 2**64 addresses of an IPv6 /64 network count as one, as a single host may own all of them.
    """
    address = address or ""
    with contextlib.suppress(ValueError):  # not an IP address, for example the name of a test client
        ip = ipaddress.ip_address(address)
        if ip.version == 6 and ip.ipv4_mapped is None and not ip.is_loopback:
            address = str(ipaddress.ip_network((ip, 64), strict=False))
    return Client(address, cookie if is_cookie(cookie) else "")


def is_cookie(cookie: str | None) -> bool:
    """Return whether a cookie has the form that the server issues."""
    return cookie is not None and _COOKIE.fullmatch(cookie) is not None


class Slots:
    """A bound on the number of concurrent event streams or uploads. Only for use on the event loop's thread.

    Args:
      noun: what a slot stands for, in the plural, for error messages.
      per_client, per_address, total: the largest number of open slots.
    """

    def __init__(self, noun: str, per_client: int, per_address: int, total: int):
        self.noun = noun
        self.per_client, self.per_address, self.total = per_client, per_address, total
        self._open: collections.Counter[Client | str] = collections.Counter()

    @contextlib.contextmanager
    def hold(self, client: Client) -> Iterator[None]:
        """Occupy one slot for the duration of the block.

        Raises:
          Refused: 429 if the client or its address has too many open, 503 if all clients together have.
        """
        if self._open[client] >= self.per_client or self._open[client.address] >= self.per_address:
            raise Refused(429, f"Too many {self.noun} are open from here: close one, or wait.", {"Retry-After": "2"})
        if len(self) >= self.total:
            raise Refused(503, f"Too many {self.noun} are open: try again in a moment.", {"Retry-After": "2"})
        keys = (client, client.address)
        self._open.update(keys)
        try:
            yield
        finally:
            self._open.subtract(keys)
            self._open += collections.Counter()  # drops the keys whose count is zero

    def __len__(self) -> int:
        return sum(count for key, count in self._open.items() if isinstance(key, Client))


def check_token(host: str, token: str | None) -> None:
    """Check the token against the address that the server listens on.

    Args:
      host: the address.
      token: the secret, or None.

    Raises:
      ValueError: the address needs a token and there is none, or the token is too short or cannot be sent in a header.
    """
    if token is None:
        if host not in LOOPBACK:
            raise ValueError(
                f"--host {host} can be reached from other machines: set a token in the environment variable "
                f"{TOKEN_VARIABLE} or with --token, or listen at 127.0.0.1"
            )
    elif len(token) < TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"--token must have at least {TOKEN_CHARACTERS} characters, letters, digits and signs of ASCII"
        )
