"""Downloads for clients: only from public addresses, and from the very address that was checked.

A name is resolved once. If all of its addresses may be used, the connection goes to one of them by number, so that a
name server which changes its answer (DNS rebinding) changes nothing. Every redirect is checked in the same way. No
proxy of the environment is used.
"""

import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import SplitResult, urljoin, urlsplit

from omniqa.errors import first_line
from omniqa.serve.errors import ApiError, bad_request

REDIRECTS = 5
STALL_S = 15.0  # without any byte
TOTAL_S = 300.0
_PIECE = 2**18
_PORTS = {"http": 80, "https": 443}
_MOVED = (301, 302, 303, 307, 308)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def download(
    address: str, allow_hosts: Collection[str], most_bytes: int, is_wanted: Callable[[], bool] = lambda: True
) -> Iterator[bytes]:
    """The content of an address, in pieces.

    Args:
        address: http or https.
        allow_hosts: hosts that may have private addresses.
        most_bytes: how much is taken.
        is_wanted: asked whenever something comes; the download ends once it is False.

    Raises:
        ApiError: the address may not be opened, its server can't be reached or refuses, or it sends too much or too
            slowly.
    """
    deadline = time.monotonic() + TOTAL_S

    def check() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError
        if not is_wanted():
            raise _failed(address, "nobody waits for it any more")

    try:
        yield from _download(address, allow_hosts, most_bytes, check)
    except TimeoutError as error:
        raise _failed(address, "its server is too slow") from error
    except ssl.SSLCertVerificationError as error:
        raise _failed(address, f"its certificate is not trusted ({error.verify_message})") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or first_line(error) or type(error).__name__
        raise _failed(address, reason.rstrip(".")) from error


def _download(
    address: str, allow_hosts: Collection[str], most_bytes: int, check: Callable[[], None]
) -> Iterator[bytes]:
    for _ in range(REDIRECTS + 1):
        check()
        connection = _connect(_split(address), allow_hosts, check)
        try:
            response = _ask(connection, address)
            if response.status in _MOVED:
                address = _join(address, response.getheader("Location") or "")
                continue
            if response.status != 200:
                raise _failed(address, f"its server says {response.status}")
            yield from _pieces(response, address, most_bytes)
            return
        finally:
            connection.close()
    raise _failed(address, f"it redirects more than {REDIRECTS} times")


def _pieces(response: HTTPResponse, address: str, most_bytes: int) -> Iterator[bytes]:
    said = response.length
    if said is not None and said > most_bytes:
        raise _failed(address, f"it is larger than {most_bytes / 1e6:,.0f} MB")
    while piece := response.read1(_PIECE):
        yield piece
    if response.length:
        raise _failed(address, "its server broke off")


def _join(address: str, location: str) -> str:
    try:
        return urljoin(address, location)
    except ValueError as error:
        raise bad_request(f"{address[:200]} redirects to what is no address.", "messages", "network") from error


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise bad_request(f"{address[:200]!r} is no address.", "messages", "network") from error
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
        raise bad_request(
            f"{address[:200]!r} can't be opened: only http and https are, without a user's name.", "messages", "network"
        )
    if any(ord(character) <= 32 or ord(character) == 127 for character in address):
        raise bad_request(f"{address[:200]!r} is no address.", "messages", "network")
    return parts


def _ask(connection: HTTPConnection, address: str) -> HTTPResponse:
    parts = urlsplit(address)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"User-Agent": "omniqa", "Accept-Encoding": "identity", "Accept": "*/*"}
    connection.request("GET", target.encode("ascii", "replace").decode(), headers=headers)
    return connection.getresponse()


class _CheckedSocket:
    """A socket as HTTPConnection uses one; `check` is called before anything is read, of a response's head, too."""

    def __init__(self, sock: socket.socket, check: Callable[[], None]) -> None:
        self._sock, self._check = sock, check
        self.sendall, self.close = sock.sendall, sock.close

    def makefile(self, *given: Any, **named: Any) -> io.BufferedReader:
        """What the response is read from."""
        return io.BufferedReader(_CheckedReader(self._sock.makefile("rb", buffering=0), self._check))


class _CheckedReader(io.RawIOBase):
    def __init__(self, raw: Any, check: Callable[[], None]) -> None:
        self._raw, self._check = raw, check

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._check()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _connect(parts: SplitResult, allow_hosts: Collection[str], check: Callable[[], None]) -> HTTPConnection:
    """A connection to an address that was checked."""
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    checked = checked_addresses(host, port, allow_hosts)
    connection = HTTPConnection(host, port, timeout=STALL_S)
    sock = _reached(checked, port)
    if parts.scheme == "https":
        try:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise
    connection.sock = cast(Any, _CheckedSocket(sock, check))
    return connection


def _reached(addresses: list[Address], port: int) -> socket.socket:
    """A socket to the first address that takes the connection."""
    for address in addresses[:-1]:
        with suppress(OSError):
            return socket.create_connection((str(address), port), timeout=STALL_S)
    return socket.create_connection((str(addresses[-1]), port), timeout=STALL_S)


def checked_addresses(host: str, port: int, allow_hosts: Collection[str]) -> list[Address]:
    """What a host's name stands for.

    Raises:
        ApiError: it stands for nothing, or for an address that is not public and not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _failed(host, "there is no such host") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not addresses:
        raise _failed(host, "there is no such host")
    if host.rstrip(".").lower() not in {name.strip("[]").lower() for name in allow_hosts}:
        for address in addresses:
            if not is_public(address):
                raise ApiError(
                    403, f"{host} has an address that is not public; this server does not open it.", "network"
                )
    return addresses


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet; one that wraps others is if all of these are."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _wrapped(address)
        if any(not is_public(one) for one in inner):
            return False
        if not any(address in network for network in _PUBLIC_IPV6):
            return address.ipv4_mapped is not None
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    return address in _NAT64 or (address.is_global and not address.is_multicast and not address.is_reserved)


def _wrapped(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for or goes through."""
    translated = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None
    found = [translated, address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    return [one for one in found if one is not None]


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PUBLIC_IPV6 = (ipaddress.IPv6Network("2000::/3"), _NAT64)  # all of IPv6 that is given out to the public internet
_NOT_PUBLIC = (  # ranges that not every release of Python knows to be special
    ipaddress.ip_network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.ip_network("168.63.129.16/32"),  # a cloud's own service for its machines, which has a public number
    ipaddress.ip_network("3fff::/20"),  # documentation
)


def _failed(address: str, why: str) -> ApiError:
    return bad_request(f"{address[:200]} can't be downloaded: {why}.", "messages", "network")
