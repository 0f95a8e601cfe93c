"""The checks that every request must pass first, and the headers of every response."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from absl import logging
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videogen_jax.studio.clients import COOKIE, COOKIE_BYTES, LOOPBACK, is_cookie
from videogen_jax.studio.errors import Refused
from videogen_jax.studio.limits import Limits

TOKEN_COOKIE = "videogen_token"
UPLOADS = "/api/v1/uploads"
_UNSAFE_METHODS = ("POST", "PUT", "PATCH", "DELETE")
_RESPONSE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gate:
    """ASGI middleware that authorizes requests and bounds the size of their bodies.

    - Without a token, only requests addressed to a loopback name are accepted, so that a foreign page whose name is
      made to resolve to this machine (DNS rebinding) can read nothing. With a token, such a page has no cookie.
    - Requests that change something are only accepted from the studio's own page (Origin) and must declare what they
      send (Content-Type).
    - With a token, every path but /healthz requires it: as `Authorization: Bearer`, or by the cookie that a browser
      gets when the page is opened once as /?token=...

    Args:
      app: the application behind it.
      limits: bounds on the bodies of requests.
      token: the secret; None if none is needed, in which case the server listens on a loopback address.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None):
        self.app, self.limits, self.token = app, limits, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # "lifespan" is passed on; there are no websockets
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies = _cookies(headers.get("cookie", ""))
        set_cookies: list[str] = []  # sent with the response
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                response_headers = MutableHeaders(scope=message)
                for name, value in _RESPONSE_HEADERS.items():
                    response_headers[name] = value
                caching = "no-cache" if scope["path"].startswith("/static/") else "no-store"
                response_headers.setdefault("Cache-Control", caching)
                for cookie in set_cookies:
                    response_headers.append("Set-Cookie", cookie)
            await send(message)

        try:
            if self.token is None:
                _check_host(headers)
            elif scope["path"] != "/healthz":
                if (page := self._page_behind_token(scope)) is not None:
                    set_cookies.append(_set_cookie(scope, TOKEN_COOKIE, _token_hash(self.token)))
                    await _redirect(page, send_with_headers)
                    return
                self._check_token(headers, cookies)
            if scope["method"] in _UNSAFE_METHODS:
                _check_origin(headers)
                receive = self._check_body(scope, headers, receive)
            if scope["path"] == "/" and not is_cookie(cookies.get(COOKIE)):
                set_cookies.append(_set_cookie(scope, COOKIE, secrets.token_hex(COOKIE_BYTES)))
            await self.app(scope, receive, send_with_headers)
        except Refused as refused:
            if started:
                raise
            await _respond(refused, send_with_headers)
        except ClientDisconnect:  # there is no one left to respond to
            return
        except Exception:  # a failed request must not stop the server
            logging.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                await _respond(
                    Refused(500, "Something went wrong on the server; its log tells what."), send_with_headers
                )

    def _page_behind_token(self, scope: Scope) -> str | None:
        """Return where to redirect if the page was opened with the right token in its query, otherwise None."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        tokens = [value for name, value in query if name == "token"]
        if not tokens or not _equal(tokens[0], self.token):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        return f"/?{rest}" if rest else "/"

    def _check_token(self, headers: Headers, cookies: dict[str, str]) -> None:
        kind, _, value = headers.get("authorization", "").partition(" ")
        authorized = kind.lower() == "bearer" and _equal(value.strip(), self.token)
        if not authorized and not _equal(cookies.get(TOKEN_COOKIE, ""), _token_hash(self.token)):
            raise Refused(
                401,
                "The token is missing or wrong: send it as `Authorization: Bearer`, or open the page as /?token=...",
                {"WWW-Authenticate": "Bearer"},
            )

    def _check_body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Check the headers that describe the body, and return a `receive` that enforces its limits."""
        is_upload = scope["path"].rstrip("/") == UPLOADS
        max_bytes = self.limits.upload_bytes if is_upload else self.limits.json_bytes
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        length = headers.get("content-length")
        if length is not None and (not length.isascii() or not length.isdigit()):
            raise Refused(400, "Content-Length is not a number.")
        if scope["method"] != "DELETE" and scope["path"].startswith("/api/"):
            if is_upload and not kind.startswith("image/"):
                raise Refused(415, "Content-Type of an upload must be that of an image, such as image/png.")
            if not is_upload and kind != "application/json":
                raise Refused(415, "Content-Type must be application/json.")
            if is_upload and length is None:
                raise Refused(411, "Content-Length of an upload is missing.")
        if int(length or 0) > max_bytes:
            raise _too_large(max_bytes)
        received, deadline = 0, asyncio.get_running_loop().time() + self.limits.body_seconds

        async def receive_bounded() -> Message:
            nonlocal received, deadline
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"The body did not arrive within {self.limits.body_seconds:g} seconds.") from None
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > max_bytes:
                    raise _too_large(max_bytes)
                if not message.get("more_body"):
                    deadline = None  # later calls wait for the client to disconnect
            return message

        return receive_bounded


def _check_host(headers: Headers) -> None:
    hosts = headers.getlist("host")
    if len(hosts) != 1 or _host_name(hosts[0]) not in LOOPBACK:
        raise Refused(403, f"Host is not a name of this machine: open the studio as {' or '.join(LOOPBACK[:2])}.")


def _check_origin(headers: Headers) -> None:
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise Refused(403, "Origin is another site, and other sites' pages may change nothing here.")


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, f"The body is too large: at most {max_bytes:,} bytes are taken.", {"Connection": "close"})


def _host_name(host: str) -> str:
    with contextlib.suppress(ValueError):
        return urlsplit(f"//{host}").hostname or ""
    return ""


def _cookies(text: str) -> dict[str, str]:
    with contextlib.suppress(CookieError):
        return {name: morsel.value for name, morsel in SimpleCookie(text).items()}
    return {}


def _token_hash(token: str) -> str:
    """Return the value of the token cookie: a hash, so that the browser does not store the token itself."""
    return hashlib.sha256(f"videogen studio {token}".encode()).hexdigest()


def _equal(value: str, secret: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(value.encode("utf-8", "replace"), secret.encode())


def _set_cookie(scope: Scope, name: str, value: str) -> str:
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000{secure}"


async def _redirect(location: str, send: Send) -> None:
    await send({"type": "http.response.start", "status": 303, "headers": [(b"location", location.encode("latin-1"))]})
    await send({"type": "http.response.body", "body": b""})


async def _respond(refused: Refused, send: Send) -> None:
    body = json.dumps({"error": refused.sentence}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
