"""Under which licence a model's weights come, as their card or configuration says. Never guessed."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from omniqa.models.hub import CONFIG, NANO, files_of
from omniqa.models.qwen2_5_omni.checkpoint import CARD

UNSTATED = "not stated in the checkpoint"
_FIELDS = ("license_name", "license")  # in this order: "license: other" has its name beside it


def licence(model: str) -> str:
    """The licence in words; UNSTATED if the files that are here say nothing.

    Args:
        model: a folder, NANO, or a hub id, of which the hub's local cache is looked at.

    Raises:
        ModelError: it is none of these.
    """
    if model == NANO:
        return _own()
    files = files_of(model)
    stated = _of_card(files.here(CARD)) or _of_config(files.here(CONFIG))
    return stated or UNSTATED


def _own() -> str:
    """nano's weights were made by this project, and come under its licence."""
    try:
        own = importlib.metadata.metadata("omniqa")["License-Expression"]
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        own = None
    return f"{own}, omniqa's own" if own else "omniqa's own"


def _of_card(card: Path | None) -> str:
    """What the card's metadata say, with the link to the text if they have one."""
    if card is None:
        return ""
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    try:
        about = metadata_load(card)
    except (YAMLError, ValueError, OSError):  # a card that nobody can read states nothing
        return ""
    link = about.get("license_link") if isinstance(about, dict) else None
    stated = _stated(about)
    return f"{stated} ({link})" if stated and isinstance(link, str) and "://" in link else stated


def _of_config(config: Path | None) -> str:
    try:
        return "" if config is None else _stated(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ""


def _stated(about: Any) -> str:
    values = (about.get(field) for field in _FIELDS) if isinstance(about, dict) else ()
    return next((value.strip() for value in values if isinstance(value, str) and value.strip()), "")
