"""What is checked of every request before anything else, and told with every answer."""

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
_WRITING = ("POST", "PUT", "PATCH", "DELETE")
_HEADERS = {
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
    """ASGI middleware: lets in who may come in, with a body of bounded size.

    - Without a token only requests to a loopback name are met, so that a page elsewhere whose name is made to point
      here (DNS rebinding) reads nothing. With one, such a page has no cookie.
    - Requests that change something come from no page but our own (Origin), and say what they send (Content-Type).
    - With a token, everything but /healthz needs it: as `Authorization: Bearer`, or by the cookie that a page gets
      when it is opened once as /?token=...

    Args:
      token: None: none is needed, and the server is bound to a loopback address.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None):
        self.app, self.limits, self.token = app, limits, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # lifespan; a websocket is none of ours
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies = _cookies(headers.get("cookie", ""))
        sent: list[str] = []  # cookies that go with the answer
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer[name] = value
                answer.setdefault("Cache-Control", "no-cache" if scope["path"].startswith("/static/") else "no-store")
                for cookie in sent:
                    answer.append("Set-Cookie", cookie)
            await send(message)

        try:
            if self.token is None:
                _check_host(headers)
            elif scope["path"] != "/healthz":
                if (page := self._token_page(scope)) is not None:
                    sent.append(_set_cookie(scope, TOKEN_COOKIE, _token_mark(self.token)))
                    await _redirect(page, send_guarded)
                    return
                self._check_token(headers, cookies)
            if scope["method"] in _WRITING:
                _check_origin(headers)
                receive = self._check_body(scope, headers, receive)
            if scope["path"] == "/" and not is_cookie(cookies.get(COOKIE)):
                sent.append(_set_cookie(scope, COOKIE, secrets.token_hex(COOKIE_BYTES)))
            await self.app(scope, receive, send_guarded)
        except Refused as refused:
            if started:
                raise
            await _answer(refused, send_guarded)
        except ClientDisconnect:  # nobody is there to be answered
            return
        except Exception:  # whatever went wrong with one request, the next ones are met
            logging.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                await _answer(Refused(500, "Something went wrong on the server; its log tells what."), send_guarded)

    def _token_page(self, scope: Scope) -> str | None:
        """Where to go on if this is the page opened with the right token; None: it is not."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        given = [value for name, value in query if name == "token"]
        if not given or not _equal(given[0], self.token):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        return f"/?{rest}" if rest else "/"

    def _check_token(self, headers: Headers, cookies: dict[str, str]) -> None:
        kind, _, value = headers.get("authorization", "").partition(" ")
        given = kind.lower() == "bearer" and _equal(value.strip(), self.token)
        if not given and not _equal(cookies.get(TOKEN_COOKIE, ""), _token_mark(self.token)):
            raise Refused(
                401,
                "The token is missing or wrong: send it as `Authorization: Bearer`, or open the page as /?token=...",
                {"WWW-Authenticate": "Bearer"},
            )

    def _check_body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Checks what is said of the body, and gives a `receive` that holds it to its bounds."""
        is_upload = scope["path"].rstrip("/") == UPLOADS
        most = self.limits.upload_bytes if is_upload else self.limits.json_bytes
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
        if int(length or 0) > most:
            raise _too_large(most)
        received, until = 0, asyncio.get_running_loop().time() + self.limits.body_seconds

        async def receive_bounded() -> Message:
            nonlocal received, until
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"The body did not arrive within {self.limits.body_seconds:g} seconds.") from None
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > most:
                    raise _too_large(most)
                if not message.get("more_body"):
                    until = None  # from here on it is waited for the client to go
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


def _too_large(most: int) -> Refused:
    return Refused(413, f"The body is too large: at most {most:,} bytes are taken.", {"Connection": "close"})


def _host_name(host: str) -> str:
    with contextlib.suppress(ValueError):
        return urlsplit(f"//{host}").hostname or ""
    return ""


def _cookies(text: str) -> dict[str, str]:
    with contextlib.suppress(CookieError):
        return {name: morsel.value for name, morsel in SimpleCookie(text).items()}
    return {}


def _token_mark(token: str) -> str:
    """What the cookie holds instead of the token, which so is nowhere in the browser's store."""
    return hashlib.sha256(f"videogen studio {token}".encode()).hexdigest()


def _equal(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


def _set_cookie(scope: Scope, name: str, value: str) -> str:
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000{secure}"


async def _redirect(where: str, send: Send) -> None:
    await send({"type": "http.response.start", "status": 303, "headers": [(b"location", where.encode("latin-1"))]})
    await send({"type": "http.response.body", "body": b""})


async def _answer(refused: Refused, send: Send) -> None:
    body = json.dumps({"error": refused.sentence}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
