"""Downloads for clients: only from public addresses, and from the very address that was checked.

A name is resolved once. If all of its addresses may be used, the connection goes to one of them by number, so that a
name server which changes its answer (DNS rebinding) changes nothing. Every redirect is checked in the same way. No
proxy of the environment is used.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
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
        is_wanted: asked between the pieces; the download ends once it is False.

    Raises:
        ApiError: the address may not be opened, its server can't be reached or refuses, or it sends too much or too
            slowly.
    """
    deadline = time.monotonic() + TOTAL_S
    try:
        yield from _download(address, allow_hosts, most_bytes, is_wanted, deadline)
    except TimeoutError as error:
        raise _failed(address, "its server is too slow") from error
    except ssl.SSLCertVerificationError as error:
        raise _failed(address, f"its certificate is not trusted ({error.verify_message})") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or first_line(error) or type(error).__name__
        raise _failed(address, reason.rstrip(".")) from error


def _download(
    address: str, allow_hosts: Collection[str], most_bytes: int, is_wanted: Callable[[], bool], deadline: float
) -> Iterator[bytes]:
    for _ in range(REDIRECTS + 1):
        connection = _connect(_split(address), allow_hosts)
        try:
            response = _ask(connection, address)
            if response.status in _MOVED:
                address = _join(address, response.getheader("Location") or "")
                continue
            if response.status != 200:
                raise _failed(address, f"its server says {response.status}")
            yield from _pieces(response, address, most_bytes, is_wanted, deadline)
            return
        finally:
            connection.close()
    raise _failed(address, f"it redirects more than {REDIRECTS} times")


def _pieces(
    response: HTTPResponse, address: str, most_bytes: int, is_wanted: Callable[[], bool], deadline: float
) -> Iterator[bytes]:
    said = response.length
    if said is not None and said > most_bytes:
        raise _failed(address, f"it is larger than {most_bytes / 1e6:,.0f} MB")
    while piece := response.read1(_PIECE):
        if time.monotonic() > deadline:
            raise TimeoutError
        if not is_wanted():
            raise _failed(address, "nobody waits for it any more")
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


def _connect(parts: SplitResult, allow_hosts: Collection[str]) -> HTTPConnection:
    """A connection to an address that was checked."""
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    checked = checked_addresses(host, port, allow_hosts)
    connection = HTTPConnection(host, port, timeout=STALL_S)
    sock = socket.create_connection((str(checked[0]), port), timeout=STALL_S)
    if parts.scheme == "https":
        try:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise
    connection.sock = sock
    return connection


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
    """Whether an address is one of the public internet, also where it wraps an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if any(one is not None and not is_public(one) for one in inner):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast and not address.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _failed(address: str, why: str) -> ApiError:
    return bad_request(f"{address[:200]} can't be downloaded: {why}.", "messages", "network")
