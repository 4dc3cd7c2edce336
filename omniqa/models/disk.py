"""Whether the disk has room for a model's files, asked before they are downloaded."""

from collections.abc import Sequence

from omniqa.errors import StorageError
from omniqa.models.qwen2_5_omni.flops import PUBLISHED, ModelShape
from omniqa.runtime.machine import disk_free, hub_cache

GIB = 2**30
_STORED_BYTES = 2  # of a number in the published checkpoints


def require_disk(repo: str, files: Sequence[str]) -> None:
    """Make sure that files of a hub model have room in the hub's cache.

    Args:
        repo: the model's hub id.
        files: those that will be downloaded.

    Raises:
        StorageError: they have none.
    """
    needed, free = download_bytes(repo, files), disk_free(hub_cache())
    if needed > free:
        raise StorageError(
            f"{repo} needs {needed / GIB:.1f} GiB of disk, and {free / GIB:.1f} GiB are free in {hub_cache()}. Free "
            "some, or set HF_HOME to a folder on another disk."
        )


def download_bytes(repo: str, files: Sequence[str]) -> int:
    """How much the hub says that files of a model are; what its weights come to if the hub does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = HfApi().get_paths_info(repo, list(files))
    except (HfHubHTTPError, OSError):  # the download, which comes next, says what is wrong
        return thinker_bytes(repo)
    return sum(getattr(file, "size", 0) for file in found)


def thinker_bytes(model: str) -> int:
    """Bytes of a published model's weights, by its sizes; 0 for others."""
    return _STORED_BYTES * ModelShape.of(model).parameters if model in PUBLISHED else 0
