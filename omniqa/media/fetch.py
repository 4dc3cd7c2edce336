"""What an address holds, by asking its server; and a copy of it, if FFmpeg should not open it by itself.

Imported only once an address is opened: the HTTP client takes a while to import.
"""

from __future__ import annotations

import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from omniqa.errors import MediaError, first_line
from omniqa.interrupts import interrupts_held
from omniqa.media.access import STALL_SECONDS, Access

if TYPE_CHECKING:
    from omniqa.media.download import Copy, OnBytes

_PIECE = 2**18
_SNIFFED = 1024  # bytes that are asked for first: enough to tell a page and a playlist from media
_SPARE = 200 * 10**6  # bytes of the disk that stay free
_PAGE_STARTS = (b"<!doctype html", b"<html")
_PLAYLIST_STARTS = (b"#extm3u", b"<mpd")
_PLAYLIST_TYPES = ("mpegurl", "dash+xml")


def fetch(address: str, access: Access, entry: Copy, on_bytes: OnBytes) -> None:
    """Ask the server what the address is, and copy it if FFmpeg should not open it.

    Raises:
        MediaError: the server refuses, can't be reached, breaks off, or sends too much; or the disk is too small.
    """
    with _errors(address), _open(address, {"Range": f"bytes=0-{_SNIFFED - 1}"}) as response:
        start = response.read(_SNIFFED)
        kind = response.headers.get_content_type()
        if kind == "text/html" or _begins(start, _PAGE_STARTS):
            _copy_from_page(address, access, entry, on_bytes)
            return
        if response.status == 206 or any(name in kind for name in _PLAYLIST_TYPES) or _begins(start, _PLAYLIST_STARTS):
            return
        entry.file = _new_file(entry, "clip.media")
        total = _length(response)
        _check_size(address, total or 0, total or 0, access)
        with entry.file.open("wb") as file:
            done = 0
            while start:
                done += len(start)
                _check_size(address, done, len(start), access)
                file.write(start)
                on_bytes(done, total)
                start = response.read(_PIECE)
        if total is not None and done < total:
            raise MediaError(f"{address} broke off after {done} of {total} bytes. Try again.")


def _begins(start: bytes, marks: tuple[bytes, ...]) -> bool:
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(marks)


def _open(address: str, headers: dict[str, str]) -> HTTPResponse:
    headers = {"User-Agent": "omniqa", "Accept-Encoding": "identity"} | headers
    try:
        return urlopen(Request(address, headers=headers), timeout=STALL_SECONDS)
    except HTTPError as error:
        if error.code not in (400, 416, 501):  # servers that refuse the range, not the file
            raise
        error.close()
    headers.pop("Range")
    return urlopen(Request(address, headers=headers), timeout=STALL_SECONDS)


def _length(response: HTTPResponse) -> int | None:
    """The bytes that the server says it sends."""
    said = response.headers.get("Content-Length", "")
    return int(said) if said.isascii() and said.isdigit() else None


def _new_file(entry: Copy, name: str) -> Path:
    with interrupts_held():  # between its making and its name being known, nobody could delete it
        entry.folder = tempfile.mkdtemp(prefix="omniqa-")
    return Path(entry.folder) / name


def _check_size(address: str, size: int, more: int, access: Access) -> None:
    """Raise MediaError if a copy of `size` bytes is too large, or the disk has no room for `more`."""
    if size > access.max_download:
        raise MediaError(
            f"{address} is larger than {access.max_download / 1e9:g} GB, or has no end.",
            field="max_download",
            advice="Set {max_download} if it is to be copied all the same.",
        )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if more > free - _SPARE:
        raise MediaError(
            f"{address} can't be copied: {tempfile.gettempdir()} has {free / 1e9:.1f} GB free. Set TMPDIR to a folder "
            "with more room."
        )


@contextmanager
def _errors(address: str) -> Iterator[None]:
    """Everything that can go wrong with a server, as one sentence."""
    try:
        yield
    except HTTPError as error:
        error.close()
        said = f"the server says {error.code} {first_line(str(error.reason))}"
        if 300 <= error.code < 400:  # followed as far as that makes sense
            said = "it redirects in a circle, or to what is no web address"
        raise MediaError(f"{address} can't be read: {said}.") from error
    except URLError as error:
        raise MediaError(f"{address} can't be read: {_reason(error.reason)}.") from error
    except TimeoutError as error:
        raise MediaError(f"{address} was given up: nothing came for {STALL_SECONDS:g} s.") from error
    except HTTPException as error:
        raise MediaError(f"{address} can't be read: the server breaks off, or does not speak HTTP.") from error
    except OSError as error:
        raise MediaError(f"{address} can't be copied: {_reason(error)}.") from error
    except ValueError as error:  # an address that is none
        raise MediaError(f"{address} is not a valid address: {error}.") from error


def _reason(error: Any) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return f"no answer within {STALL_SECONDS:g} s"
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _copy_from_page(address: str, access: Access, entry: Copy, on_bytes: OnBytes) -> None:
    """Let yt-dlp find the page's media, and copy it."""
    try:
        from yt_dlp import YoutubeDL
        from yt_dlp.utils import YoutubeDLError
    except ImportError as error:
        raise MediaError(
            f"{address} is a web page, not media. With yt-dlp, omniqa can look for the video in it: "
            "pip install 'omniqa[url]'."
        ) from error

    def watch(status: dict[str, Any]) -> None:
        done, total = status.get("downloaded_bytes") or 0, status.get("total_bytes")
        _check_size(address, max(done, total or 0), (total or done) - done, access)
        on_bytes(done, total)

    pattern = _new_file(entry, "clip.%(ext)s")
    # 720 lines are more than the model looks at. One file with both streams needs no ffmpeg program to join them.
    options = {
        "outtmpl": str(pattern), "format": "b[height<=720]/b/bv*", "noplaylist": True, "playlist_items": "1",
        "quiet": True, "no_warnings": True, "noprogress": True, "logger": _Silent(), "progress_hooks": [watch],
        "socket_timeout": STALL_SECONDS, "cachedir": False,
    }  # fmt: skip
    try:
        with YoutubeDL(options) as loader:
            loader.download([address])
    except YoutubeDLError as error:
        cause = getattr(error, "exc_info", None) or (None, None)
        if isinstance(cause[1], MediaError):
            raise cause[1] from None
        said = str(error).partition("\n")[0].partition(";")[0].removeprefix("ERROR: ").rstrip(".")
        raise MediaError(f"{address} is a web page, and yt-dlp finds no video in it: {said}.") from error
    files = [file for file in pattern.parent.iterdir() if file.suffix != ".part"]
    if not files:
        raise MediaError(f"{address} is a web page, and yt-dlp finds no video in it.")
    entry.file = files[0]


class _Silent:
    """yt-dlp's log, which nobody reads: what went wrong comes as an error."""

    def debug(self, message: str) -> None:
        """Nothing."""

    warning = error = debug
