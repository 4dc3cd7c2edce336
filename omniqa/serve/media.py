"""The clip that a client names, as a file that may be read: from an upload, a data URL, the media root, or the web."""

import base64
import binascii
import hashlib
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from urllib.parse import unquote_to_bytes

from omniqa.errors import OmniqaError
from omniqa.serve.chat_request import MediaPart
from omniqa.serve.download import download
from omniqa.serve.errors import ApiError, bad_request, from_omniqa, too_many
from omniqa.serve.media_root import MediaRoot, RootFile
from omniqa.serve.settings import ServeSettings
from omniqa.serve.upload_folder import UploadFolder

_PIECE = 2**20
_DOWNLOADS_AT_ONCE = 8  # fewer than the threads that read clips, so that slow servers hold up no other clip
_FILE_ID = re.compile(r"file-[0-9a-f]{32}")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[\w.+-]+)*)(;base64)?,", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class Medium:
    """A clip that may be read.

    Attributes:
        name: what the client calls it.
        path: where to read it; only while the block that gave it runs.
        digest: of its content.
    """

    name: str
    path: Path
    digest: str


@dataclass(frozen=True)
class StoredFile:
    """A file that a client has uploaded."""

    id: str
    name: str
    bytes: int
    created: int
    digest: str

    def to_dict(self) -> dict[str, object]:
        """As OpenAI's API describes a file."""
        return {
            "id": self.id, "object": "file", "bytes": self.bytes, "created_at": self.created, "filename": self.name,
            "purpose": "user_data", "status": "processed",
        }  # fmt: skip


class FileStore:
    """Content that clients have sent, in a folder of this process: of the same content one copy.

    Args:
        upload_bytes: most bytes of one file.
        stored_bytes: most of all; the least recently used files give way.
    """

    def __init__(self, upload_bytes: int, stored_bytes: int) -> None:
        self.upload_bytes, self.stored_bytes = upload_bytes, stored_bytes
        self._home = UploadFolder()
        self.folder = self._home.content
        self._files: dict[str, StoredFile] = {}
        self._content: OrderedDict[str, int] = OrderedDict()  # bytes by digest, the least recently used first
        self._in_use: dict[str, int] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Delete all of it."""
        self._home.close()

    def add(self, pieces: Iterable[bytes]) -> str:
        """Keep this content; gives its digest.

        Raises:
            ApiError: it is empty or too large, or the disk is full.
        """
        digest, size = hashlib.sha256(), 0
        unfinished = self.folder / f"{secrets.token_hex(8)}.part"
        try:
            with unfinished.open("xb") as file:
                for piece in pieces:
                    size += len(piece)
                    if size > self.upload_bytes:
                        raise too_large(self.upload_bytes)
                    digest.update(piece)
                    file.write(piece)
            if not size:
                raise bad_request("The file is empty.", code="media")
            return self._keep(unfinished, digest.hexdigest(), size)
        except OSError as error:
            raise ApiError(507, f"The file can't be kept: {error.strerror}.", "storage") from error
        finally:
            unfinished.unlink(missing_ok=True)

    def add_file(self, name: str, pieces: Iterable[bytes]) -> StoredFile:
        """Keep an upload under a new id."""
        content = self.add(pieces)
        with self._lock:
            file = StoredFile(f"file-{secrets.token_hex(16)}", name, self._content[content], int(time.time()), content)
            self._files[file.id] = file
        return file

    def files(self) -> list[StoredFile]:
        """All uploads, the newest first."""
        with self._lock:
            return sorted(self._files.values(), key=lambda file: file.created, reverse=True)

    def has(self, digest: str) -> bool:
        """Whether some content is there."""
        with self._lock:
            return digest in self._content

    def file(self, id: str) -> StoredFile:
        """An upload by its id.

        Raises:
            ApiError: there is none.
        """
        with self._lock:
            found = self._files.get(id)
        if found is None:
            raise ApiError(404, f"There is no file {id[:64]!r}. Uploads give way to newer ones.", "file_not_found")
        return found

    def delete(self, id: str) -> None:
        """Forget an upload; its content goes with the last one that has it.

        Raises:
            ApiError: there is none.
        """
        content = self.file(id).digest
        with self._lock:
            self._files.pop(id, None)
            if all(file.digest != content for file in self._files.values()) and not self._in_use.get(content):
                self._drop(content)

    @contextmanager
    def used(self, digest: str) -> Iterator[Path]:
        """The file of some content, which stays there while the block runs.

        Raises:
            ApiError: it has given way to newer content.
        """
        with self._lock:
            if digest not in self._content:
                raise ApiError(404, "The file has given way to newer ones; upload it again.", "file_not_found")
            self._content.move_to_end(digest)
            self._in_use[digest] = self._in_use.get(digest, 0) + 1
        try:
            yield self.folder / digest
        finally:
            with self._lock:
                self._in_use[digest] -= 1
                if not self._in_use[digest]:
                    del self._in_use[digest]

    def _keep(self, unfinished: Path, digest: str, size: int) -> str:
        with self._lock:
            if digest not in self._content:
                unfinished.rename(self.folder / digest)
            self._content[digest] = size
            self._content.move_to_end(digest)
            self._shrink(digest)
        return digest

    def _shrink(self, newest: str) -> None:
        for digest in list(self._content):
            if sum(self._content.values()) <= self.stored_bytes:
                return
            if digest != newest and digest not in self._in_use:
                self._files = {id: file for id, file in self._files.items() if file.digest != digest}
                self._drop(digest)

    def _drop(self, digest: str) -> None:
        self._content.pop(digest, None)
        with suppress(OSError):
            (self.folder / digest).unlink()


class MediaSource:
    """Finds the clips that clients name.

    Attributes:
        store: what clients have sent.
        root: the folder whose files they may name; None is none.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.store = FileStore(settings.limits.upload_bytes, settings.limits.stored_bytes)
        self.root = None if settings.media_root is None else MediaRoot(settings.media_root)
        self._settings = settings
        self._digests: dict[RootFile, str] = {}
        self._downloads = threading.BoundedSemaphore(_DOWNLOADS_AT_ONCE)

    @contextmanager
    def open(self, part: MediaPart, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[Medium]:
        """The clip of a message, as a file that is there while the block runs.

        Args:
            part: what the message says.
            is_wanted: whether the client still waits; asked while a download goes on.

        Raises:
            ApiError: there is none, or it may not be read.
        """
        value = part.value
        if part.kind == "input_audio":
            with self._stored("the sound", [_from_base64(value)]) as medium:
                yield medium
        elif _FILE_ID.fullmatch(value):
            file = self.store.file(value)
            with self.store.used(file.digest) as path:
                yield Medium(file.name, path, file.digest)
        elif value[:5].lower() == "data:":
            with self._stored("the data URL", [_from_data_url(value)]) as medium:
                yield medium
        elif value[:8].lower().startswith(("http://", "https://")):
            with self._stored(value, self._download(value, is_wanted)) as medium:
                yield medium
        elif _SCHEME.match(value):
            raise bad_request(
                f"{value[:40]!r} can't be opened: a video_url is a data: URL, a file's id, a path under the media "
                "root, or http(s).",
                "messages",
                "media",
            )
        else:
            with self._from_root(value) as medium:
                yield medium

    @contextmanager
    def open_again(self, name: str, digest: str) -> Iterator[Medium]:
        """A clip that was opened before, if it is still there.

        Args:
            name: what the client called it.
            digest: of its content.

        Raises:
            ApiError: it is gone, or has changed.
        """
        if self.store.has(digest):
            with self.store.used(digest) as path:
                yield Medium(name, path, digest)
            return
        with self._from_root(name) as medium:
            if medium.digest != digest:
                raise ApiError(404, f"{name} has changed since it was asked about.", "file_not_found")
            yield medium

    def _download(self, address: str, is_wanted: Callable[[], bool]) -> Iterator[bytes]:
        if not self._settings.allow_network:
            raise bad_request("This server opens no addresses. Upload the clip to /v1/files.", "messages", "network")
        if not self._downloads.acquire(blocking=False):
            raise too_many("downloads")
        try:
            yield from download(address, self._settings.allow_hosts, self._settings.limits.upload_bytes, is_wanted)
        finally:
            self._downloads.release()

    @contextmanager
    def _stored(self, name: str, pieces: Iterable[bytes]) -> Iterator[Medium]:
        digest = self.store.add(pieces)
        with self.store.used(digest) as path:
            yield Medium(name, path, digest)

    @contextmanager
    def _from_root(self, value: str) -> Iterator[Medium]:
        if self.root is None:
            raise bad_request("This server has no media root. Upload the clip to /v1/files.", "messages", "media")
        with self.root.open(value) as (file, state):
            if state not in self._digests:
                self._digests[state] = hashlib.file_digest(file, "sha256").hexdigest()
            yield Medium(value, path_of(file), self._digests[state])


def path_of(file: BufferedReader) -> Path:
    """A path by which this very file is opened again, whatever its name stands for by then."""
    by_number = Path(f"/proc/self/fd/{file.fileno()}")
    return by_number if by_number.exists() else Path(os.fspath(file.name))


def named(error: OmniqaError, medium: Medium) -> ApiError:
    """An error about a clip, with its name in place of where its file is."""
    told = from_omniqa(error)
    told.message = told.message.replace(f"file:{medium.path}", medium.name).replace(str(medium.path), medium.name)
    return told


def too_large(most: int) -> ApiError:
    """The error about too many bytes."""
    return ApiError(413, f"This is larger than the {most / 1e6:,.0f} MB that one file may have here.", "too_large")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii").translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request("What should be base64 is not.", "messages", "media") from error


def _from_data_url(url: str) -> bytes:
    head = _DATA_URL.match(url[:1000])
    if head is None:
        raise bad_request("The data URL is malformed.", "messages", "media")
    content = url[head.end() :]
    return _from_base64(unquote_to_bytes(content).decode("latin-1")) if head[3] else unquote_to_bytes(content)
