"""Who asks: a browser by its cookie, anything else by its address; and what each may have open at once."""

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
TOKEN_VARIABLE = "VIDEOGEN_JAX_TOKEN"
TOKEN_CHARACTERS = 16  # at least
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


class Slots:
    """Bounds what is open at once: event streams, or uploads on their way. Used from the event loop's thread alone.

    Args:
      what: what is open, as a sentence calls it.
      per_client, per_address, total: at most so many.
    """

    def __init__(self, what: str, per_client: int, per_address: int, total: int):
        self.what = what
        self.per_client, self.per_address, self.total = per_client, per_address, total
        self._open: collections.Counter[Client | str] = collections.Counter()

    @contextlib.contextmanager
    def hold(self, client: Client) -> Iterator[None]:
        """Holds one open. Raises Refused: 429 if the client or its address has too many, 503 if all have together."""
        if self._open[client] >= self.per_client or self._open[client.address] >= self.per_address:
            raise Refused(429, f"Too many {self.what} are open from here: close one, or wait.", {"Retry-After": "2"})
        if len(self) >= self.total:
            raise Refused(503, f"Too many {self.what} are open: try again in a moment.", {"Retry-After": "2"})
        keys = (client, client.address)
        self._open.update(keys)
        try:
            yield
        finally:
            self._open.subtract(keys)
            self._open += collections.Counter()  # forgets those at zero

    def __len__(self) -> int:
        return sum(count for key, count in self._open.items() if isinstance(key, Client))


def check_token(host: str, token: str | None) -> None:
    """ValueError: a token is needed and missing, or too short, or cannot be sent."""
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
