"""A media file inside a page."""

import base64
import mimetypes
from pathlib import Path

from omniqa.errors import MediaError, UsageError
from omniqa.files import read_regular
from omniqa.media.access import is_address

MOST_BYTES = 200_000_000  # beyond, browsers refuse the page or take minutes for it


def embedded(path: str | Path) -> tuple[str, str]:
    """A file as a data URL, and "video" or "audio".

    Raises:
        MediaError: it can't be read, or is too large for a page.
        UsageError: it is an address.
    """
    if is_address(str(path)):
        raise UsageError("An address can't be embedded in a report. Download the file first.", field="embed_media")
    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise MediaError(f"{path} can't be embedded in a report: {error.strerror}.") from error
    kind = mimetypes.guess_type(str(path))[0] or ""
    if kind.partition("/")[0] not in ("video", "audio"):
        kind = "video/mp4"  # browsers look at the content, but at no URL of another kind
    return f"data:{kind};base64,{base64.b64encode(content).decode()}", kind.partition("/")[0]
