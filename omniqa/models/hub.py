"""The files of a model: in a folder, or on the hub by way of its local cache.

One look-up of a model asks the hub once, and waits HF_HUB_ETAG_TIMEOUT seconds for a connection and for the answer (10
unless the environment says otherwise). All files of a model are of the same revision.
"""

import errno
import os
import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Protocol

from omniqa.errors import ModelError, first_line
from omniqa.memory import is_out_of_memory

HUB_7B = "Qwen/Qwen2.5-Omni-7B"
HUB_3B = "Qwen/Qwen2.5-Omni-3B"
NANO = "nano"  # the checkpoint that comes with the package
CONFIG = "config.json"
_NANO_FOLDER = Path(__file__).parents[1] / "nano" / "checkpoint"
_HUB_ID = re.compile(r"(?!.*(--|\.\.))\b[\w.-]+\b/\b[\w.-]{1,96}\b(?<!\.git)", re.ASCII)
_NEAR = 0.8  # share of letters that a name has in common with what was meant
_FULL = (errno.ENOSPC, errno.EDQUOT)


class ModelFiles(Protocol):
    """Where the files of a model are."""

    def here(self, name: str) -> Path | None:
        """A file that needs no download; None if there is none."""

    def find(self, name: str) -> Path | None:
        """A file, downloaded if it has to be; None if the model has no such file. Raises ModelError."""


def files_of(model: str) -> ModelFiles:
    """The files of a folder, of NANO, or of a hub id. Raises ModelError as `check_name` does."""
    check_name(model)
    folder = _folder(model)
    return HubFiles(model) if folder is None else FolderFiles(folder)


def check_name(model: str) -> None:
    """Raise ModelError unless `model` is a folder, NANO, or looks like a hub id."""
    if _folder(model) is None and not _HUB_ID.fullmatch(model):
        raise ModelError(f"There is no folder {model}, and it is not a hub id such as {HUB_7B}.{did_you_mean(model)}")


def cached(model: str) -> bool:
    """Whether the hub's local cache holds (at least the configuration of) `model`."""
    return HubFiles(model).here(CONFIG) is not None


def did_you_mean(model: str) -> str:
    """A question that offers the nearest name of a known or downloaded model; nothing if none is near."""
    scores = {name: _likeness(model, name) for name in (HUB_7B, HUB_3B, NANO, *_downloaded()) if name != model}
    best = max(scores.values())
    near = [name for name, score in scores.items() if score == best >= _NEAR]
    return f" Did you mean {' or '.join(near[:2])}?" if near else ""


def _folder(model: str) -> Path | None:
    folder = _NANO_FOLDER if model == NANO else Path(model).expanduser()
    return folder if folder.is_dir() else None


def _likeness(given: str, name: str) -> float:
    """From 0 to 1, by the whole name or by what stands behind its slash."""
    names = (name.lower(), name.lower().rpartition("/")[2])
    return max(SequenceMatcher(None, given.lower(), one).ratio() for one in names)


def _downloaded() -> list[str]:
    """Ids of the models in the hub's local cache."""
    from huggingface_hub import constants

    try:
        entries = os.listdir(constants.HF_HUB_CACHE)
    except OSError:  # there is no cache yet, or it can't be read: then nothing can be offered from it
        return []
    return [entry.removeprefix("models--").replace("--", "/") for entry in entries if entry.startswith("models--")]


class FolderFiles:
    """A folder's files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def here(self, name: str) -> Path | None:
        """See ModelFiles."""
        path = self._folder / name
        return path if os.path.lexists(path) else None

    def find(self, name: str) -> Path | None:
        """See ModelFiles."""
        return self.here(name)


class HubFiles:
    """The files of a model on the hub, each downloaded into the local cache when it is first asked for."""

    def __init__(self, repo: str) -> None:
        self._repo = repo
        self._revision: str | None = None  # the commit that config.json is of, once it is there

    def here(self, name: str) -> Path | None:
        """See ModelFiles."""
        from huggingface_hub import constants, try_to_load_from_cache

        try:
            found = try_to_load_from_cache(self._repo, name, revision=self._revision)
        except (OSError, ValueError) as error:  # what it notes there can't be read, or is no text
            raise ModelError(
                f"{self._repo}: the local cache {constants.HF_HUB_CACHE} can't be read ({first_line(error)})."
            ) from error
        return self._noted(Path(found)) if isinstance(found, str) else None

    def find(self, name: str) -> Path | None:
        """See ModelFiles."""
        return self.here(name) or self._download(name)

    def _noted(self, path: Path) -> Path:
        """The same path; its revision is that of all files from now on."""
        if path.name == CONFIG:
            self._revision = path.parent.name
        return path

    def _download(self, name: str) -> Path | None:
        from huggingface_hub import errors, get_hf_file_metadata, get_token, hf_hub_download, hf_hub_url
        from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT
        from huggingface_hub.utils import logging

        logging.set_verbosity_error()  # its retries; what comes of them is told below
        token = get_token()
        if token is not None and not (token.isascii() and token.isprintable()):
            raise _bad_token()
        try:
            if self._revision is None:  # ask once without the library's retries, which take minutes
                get_hf_file_metadata(hf_hub_url(self._repo, name), timeout=HF_HUB_ETAG_TIMEOUT)
            return self._noted(Path(hf_hub_download(self._repo, name, revision=self._revision)))
        except errors.RemoteEntryNotFoundError:
            return None
        except (errors.HTTPError, OSError, RuntimeError) as error:  # an answer, no answer, a disk; hf_xet has no types
            if is_out_of_memory(error):
                raise
            raise _reason(self._repo, error, token is not None) from error


def _bad_token() -> ModelError:
    return ModelError(
        "The hub does not accept your access token.",
        advice="Log in anew with `hf auth login`, or correct HF_TOKEN; a public model needs no token.",
    )


def _reason(repo: str, error: Any, with_token: bool) -> ModelError:
    """Why a file of `repo` was not to be had, and what to do about it.

    Args:
        with_token: whether the hub was shown a token.
    """
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # that the cache has no copy either is known
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.GatedRepoError):
        terms = f"{constants.ENDPOINT}/{repo}"
        return ModelError(f"{repo} is gated: accept its terms at {terms} and log in with `hf auth login`.")
    if status == 401 and with_token:  # a good token brings 404 for what is not there
        return _bad_token()
    if status == 401 or isinstance(error, errors.RepositoryNotFoundError):
        private = "or it is private: log in with `hf auth login`"
        return ModelError(f"The hub has no model {repo} ({private}).{did_you_mean(repo)}", field="model")
    if status is not None:
        return ModelError(f"{repo} can't be downloaded: the hub answers with error {status}. Try again later.")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ModelError(
            f"{repo} is not in the local cache (or not all of it), and the hub is switched off (HF_HUB_OFFLINE).",
            field="model",
            advice=f"Unset that once, or give {{model}} a folder.{did_you_mean(repo)}",
        )
    if getattr(error, "errno", None) in _FULL or "No space left on device" in str(error):
        full = f"the disk of {constants.HF_HUB_CACHE} is full"
        return ModelError(f"{repo} can't be downloaded: {full}. Free some, or set HF_HOME.")
    if isinstance(error, OSError) and error.strerror:
        return ModelError(f"{repo} can't be downloaded into {constants.HF_HUB_CACHE} ({error.strerror}).")
    return ModelError(
        f"{repo} is not in the local cache (or not all of it), and {constants.ENDPOINT} can't be reached or broke off "
        f"({first_line(error)[:100] or type(error).__name__}).",
        field="model",
        advice=f"Connect to the network and try again, or give {{model}} a folder.{did_you_mean(repo)}",
    )
