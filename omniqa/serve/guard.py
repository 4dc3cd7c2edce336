"""What every request must pass: names and origins, the key, and a body that comes in time and in bounds."""

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

from omniqa.serve.errors import CLOSE, ApiError, too_many
from omniqa.serve.settings import LOOPBACK, Limits, ServeSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

UPLOADS = "/v1/files"
OPEN_TO_ALL = ("/", "/health", "/favicon.ico")  # and /page/…: they tell nothing of clips, and can start nothing
PAGE = "/page/"
_FORM_BYTES = 100_000  # of an upload's form, beside its file
_DIGITS = 15  # of a length that is looked at

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class Guard:
    """Stands in front of the app.

    Args:
        app: what requests go to once they have passed.
        settings: who may pass.
        count: gets the path and status of each response.
    """

    def __init__(self, app: Any, settings: ServeSettings, count: Callable[[str, int], None]) -> None:
        self._app, self._settings, self._count = app, settings, count
        self._bodies = _Held()
        self._names = frozenset(name.lower().rstrip(".") for name in (settings.host, *settings.server_names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope["path"], message["status"])
                there = {name for name, _ in message.get("headers", ())}
                more = [
                    (name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in there
                ]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        try:
            headers = _headers(scope)
            self._check_host(headers)
            self._check_origin(headers)
            self._check_key(scope["path"], headers)
            guarded = self._body(scope, receive, headers)
        except ApiError as error:
            response = JSONResponse(error.to_dict(), error.status, error.headers | CLOSE)
            await response(scope, receive, send_guarded)
            return
        try:
            await self._app(scope, guarded.receive, send_guarded)
        finally:
            guarded.end()

    def _body(self, scope: Scope, receive: Receive, headers: dict[str, list[str]]) -> "_Body":
        limits = self._settings.limits
        if scope["path"] == UPLOADS:  # it goes to the disk
            return _Body(receive, limits.upload_bytes + _FORM_BYTES, limits, headers, None)
        return _Body(receive, limits.body_bytes, limits, headers, self._bodies)

    def _check_host(self, headers: dict[str, list[str]]) -> None:
        """Refuse names that are not the server's: a page elsewhere may have had its own name point here."""
        given = headers.get("host", [])
        host = _host_of(given[0]) if len(given) == 1 else None
        if host is None or not self._is_own(host):
            raise ApiError(
                421, "The Host header names another server. Start this one with that name, if it is its.", "host"
            )

    def _is_own(self, host: str) -> bool:
        if host in self._names or (self._settings.is_local and host in LOOPBACK):
            return True
        # A number can't be made to point elsewhere. A server for others is called by whichever it has.
        return not self._settings.is_local and (_is_number(host) or host in LOOPBACK)

    def _check_origin(self, headers: dict[str, list[str]]) -> None:
        """Refuse what a page of another origin sends."""
        for origin in headers.get("origin", []):
            if origin.lower() not in (f"{scheme}://{headers['host'][0].lower()}" for scheme in ("http", "https")):
                raise ApiError(403, "Pages of other origins may not use this server.", "origin")

    def _check_key(self, path: str, headers: dict[str, list[str]]) -> None:
        key = self._settings.api_key
        if key is None or path in OPEN_TO_ALL or path.startswith(PAGE):
            return
        given = headers.get("authorization", [""])[0]
        scheme, _, sent = given.partition(" ")
        if scheme.lower() != "bearer" or not is_key(sent.strip(), key):
            raise ApiError(
                401, "The API key is missing or wrong.", "invalid_api_key", headers={"www-authenticate": "Bearer"}
            )


def is_key(sent: str, key: str) -> bool:
    """Whether a header's text, read as Latin-1, is the key; it takes as long to tell, wherever they differ."""
    return hmac.compare_digest(sent.encode("latin-1", "replace"), key.encode("utf-8", "surrogateescape"))


@dataclass
class _Held:
    """How many bytes of bodies are in memory, of all requests."""

    bytes: int = 0


class _Body:
    """A request's body, which must come at a certain rate and end in time.

    Args:
        receive: gives its pieces.
        most_bytes: how long it may be.
        limits: what clients may use.
        headers: of the request.
        in_memory: counts the bodies that stay in memory; None if this one does not.
    """

    def __init__(
        self,
        receive: Receive,
        most_bytes: int,
        limits: Limits,
        headers: dict[str, list[str]],
        in_memory: _Held | None,
    ) -> None:
        self._receive, self._most_bytes, self._limits, self._in_memory = receive, most_bytes, limits, in_memory
        self._begun, self._received, self._whole = time.monotonic(), 0, False
        said = headers.get("content-length", ["0"])[0]
        if said.isascii() and said.isdigit() and (len(said) > _DIGITS or int(said) > most_bytes):
            raise self._too_large()

    async def receive(self) -> Message:
        """The next piece. Once all has come, this waits for the client to go away."""
        if self._whole:
            return await self._receive()
        limits = self._limits
        end = self._begun + limits.body_grace_s + self._received / limits.body_rate
        try:
            message = await asyncio.wait_for(self._receive(), max(0.01, end - time.monotonic()))
        except TimeoutError as error:
            raise ApiError(408, "The request came too slowly.", "too_slow", headers=CLOSE) from error
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
            self._whole = not message.get("more_body", False)
        return message

    def _count(self, bytes: int) -> None:
        self._received += bytes
        if self._in_memory is not None:
            self._in_memory.bytes += bytes
            if self._in_memory.bytes > self._limits.bodies_bytes:
                raise too_many("large requests", CLOSE)
        if self._received > self._most_bytes:
            raise self._too_large()

    def end(self) -> None:
        """Its request is over, and what was received of it is freed."""
        if self._in_memory is not None:
            self._in_memory.bytes -= self._received

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"The request is larger than the {self._most_bytes / 1e6:,.0f} MB it may have.", "too_large",
            headers=CLOSE,
        )  # fmt: skip


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in _pairs(scope.get("headers", ())):
        found.setdefault(name, []).append(value)
    return found


def _pairs(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    return ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)


def _host_of(header: str) -> str | None:
    """The host of a Host header, without its port; None if it is malformed."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != header or parts.username is not None:
        return None
    return (parts.hostname or "").rstrip(".") or None


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
