"""Running the server: its socket, its signals, and connections that are not waited for."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from omniqa.errors import UsageError
from omniqa.serve.app import Server
from omniqa.serve.settings import Limits, ServeSettings

if TYPE_CHECKING:
    from omniqa.pipeline.engine import OmniQA

_CONNECTIONS = 512  # at once; more are told to come again
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UsageError: the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(256)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"{host}:{port} can't be listened on ({error.strerror}).", field="port", advice="Try another {port}."
        ) from error
    return listening


def serve(
    qa: "OmniQA", settings: ServeSettings, listening: socket.socket, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGINT or SIGTERM; open requests are then finished first, for `limits.grace_s` at most.

    Args:
        qa: the model.
        settings: how.
        listening: what `open_socket` gave; it is closed in the end.
        on_ready: called once requests are taken.
    """
    server = Server(qa, settings)
    try:
        asyncio.run(Running(server, settings, on_ready).serve(sockets=[listening]))
    finally:
        server.close()
        listening.close()


def _config(server: Server, settings: ServeSettings) -> uvicorn.Config:
    config = uvicorn.Config(
        server.app,
        http=protocol(settings.limits),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=max(1, round(settings.limits.grace_s)),
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return config


class Running(uvicorn.Server):
    """uvicorn's server, which ends by itself after a signal and does not raise that once more."""

    def __init__(self, server: Server, settings: ServeSettings, on_ready: Callable[[], None]) -> None:
        super().__init__(_config(server, settings))
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests."""
        await super().startup(sockets)
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as uvicorn does, as long as it runs; only the main thread gets any."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Lingering:
    """A connection's transport whose `close` lets a client that still sends read its response first.

    A socket that is closed with bytes of its client unread resets the connection, and the client may lose what it has
    not read yet (RFC 9112, section 9.6). So the client is told that the response is over, and what it still sends is
    dropped until it closes. A second `close` closes at once.

    Args:
        transport: of the connection.
        still_sends: whether the client does.
        linger_s: seconds after which it is closed all the same.
    """

    def __init__(self, transport: asyncio.Transport, still_sends: Callable[[], bool], linger_s: float) -> None:
        self._transport, self._still_sends, self._linger_s = transport, still_sends, linger_s
        self.end: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self.end is not None or self._transport.is_closing()

    def close(self) -> None:
        """Close, now or once the client has."""
        if self.is_closing() or not self._still_sends():
            self._transport.close()
            return
        self.end = asyncio.get_running_loop().call_later(self._linger_s, self._transport.close)
        try:
            self._transport.write_eof()
        except OSError:  # the client has reset the connection
            self._transport.close()
        else:
            self._transport.resume_reading()


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's HTTP, for clients whose headers come in time, and that read what they are sent."""

    class TimedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            self._lingering = _Lingering(transport, self._still_sends, limits.linger_s)
            super().connection_made(cast(asyncio.Transport, self._lingering))
            self._wait()

        def _still_sends(self) -> bool:
            return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

        def data_received(self, data: bytes) -> None:
            if self._lingering.end is not None:
                return
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._timer is None and self.timeout_keep_alive_task is None:
                self._wait()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(limits.unread_s, self.transport.abort)

        def resume_writing(self) -> None:
            self._read()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            self._read()
            if self._lingering.end is not None:
                self._lingering.end.cancel()
            super().connection_lost(exc)

        def _read(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def _wait(self) -> None:
            self._timer = self.loop.call_later(limits.header_s, self._give_up)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._timer = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return TimedProtocol
