"""Where cuts go, and what they are called. Free of FFmpeg."""

import os
import re
from hashlib import blake2b
from pathlib import Path

from omniqa.errors import UsageError
from omniqa.media.access import is_address

_STEM_BYTES = 80
_HEAD_BYTES = 2**16
_UNSAFE = re.compile(r"[^\w.-]+")


def make_folder(folder: str | Path, field: str = "cut") -> Path:
    """The folder that the option `field` names, made if it is not there.

    Raises:
        UsageError: it can't be made, or can't be written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path} can't be made ({error.strerror}).", field=field) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"{path} can't be written to.", field=field)
    return path


def file_stem(path: str, name: str | None = None) -> str:
    """A name without surprises for shells and file systems, and a digest of where the file is and how it begins."""
    shown = name if name not in (None, "-") else ("stdin" if name == "-" else path)
    shown = str(shown).partition("?")[0] if is_address(str(shown)) else str(shown)
    printable = os.fsencode(Path(shown).stem).decode("utf-8", "replace")
    safe = _UNSAFE.sub("_", printable).strip("._-").encode()[:_STEM_BYTES].decode("utf-8", "ignore")
    digest = blake2b(digest_size=4)
    known = name or path
    digest.update(os.fsencode(known if is_address(known) or known == "-" else os.path.abspath(known)))
    if os.path.isfile(path):
        with open(path, "rb") as file:
            digest.update(str(os.path.getsize(path)).encode() + file.read(_HEAD_BYTES))
    return f"{safe or 'clip'}-{digest.hexdigest()}"
