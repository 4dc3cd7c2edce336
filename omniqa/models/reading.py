"""Reading one file of a checkpoint folder: whatever is wrong with it is a ModelError that names it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from omniqa.errors import ModelError
from omniqa.typed_json import read_file

T = TypeVar("T")
_MAX_BYTES = 2**24  # the published models' largest, the index, has a seventieth of it


def read_json(name: str, path: Path, reader: Callable[[object], T], max_bytes: int = _MAX_BYTES) -> T:
    """What a JSON file stands for.

    Args:
        name: the checkpoint, for messages.
        reader: makes it of the file's value, see omniqa.typed_json.
        max_bytes: a larger file is refused unread.

    Raises:
        ModelError: the file can't be read, is no JSON, or not what `reader` takes; the message names the entry.
    """
    try:
        return read_file(path, reader, max_bytes)
    except OSError as error:
        raise unreadable(name, path, error) from error
    except ValueError as error:
        raise ModelError(f"{name}: {path.name}: {error}.") from error


def unreadable(name: str, path: Path, error: OSError) -> ModelError:
    """The error for a file of a checkpoint that can't be read."""
    if isinstance(error, FileNotFoundError):
        return ModelError(f"{name} lacks {path.name}. Download the checkpoint again; omniqa reads safetensors only.")
    return ModelError(f"{name}: {path.name} can't be read ({error.strerror or error}).")
