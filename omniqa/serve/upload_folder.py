"""The folder for what clients send: of this process alone, and gone with it, also if it was killed."""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX, _UNNAMED = "omniqa-serve-", "omniqa-starting-"
_LOCK, _CONTENT = "lock", "content"


class UploadFolder:
    """A folder in the system's folder for temporary files, locked as long as the process lives.

    Making one deletes those of this user's processes that have ended without deleting their own. The system frees a
    lock whenever its process ends, however that happens.

    Attributes:
        content: where files are kept.
    """

    def __init__(self) -> None:
        _delete_abandoned()
        unnamed = Path(tempfile.mkdtemp(prefix=_UNNAMED))
        self._lock = FileLock(unnamed / _LOCK, timeout=0, thread_local=False)
        self._lock.acquire()
        (unnamed / _CONTENT).mkdir()
        # It gets its name once it is locked: no other process can take it for an abandoned one in between.
        self._folder = unnamed.rename(unnamed.with_name(_PREFIX + unnamed.name.removeprefix(_UNNAMED)))
        self.content = self._folder / _CONTENT

    def close(self) -> None:
        """Delete it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release()


def _delete_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):  # gone meanwhile, not ours to delete, or in use
            if not _is_own(folder):
                continue
            with FileLock(folder / _LOCK, timeout=0):
                shutil.rmtree(folder)


def _is_own(folder: Path) -> bool:
    """Whether it is a folder, and no link to one, that this user has made."""
    status = os.lstat(folder)
    return stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())
