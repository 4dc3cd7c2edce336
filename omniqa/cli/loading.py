"""Loading the model that a command was given."""

from pathlib import Path
from typing import TYPE_CHECKING

from omniqa.cache.folder import GIGABYTES
from omniqa.cli import console
from omniqa.model.checkpoint import NANO

if TYPE_CHECKING:
    from omniqa.engine import OmniQA


def load_model(
    model: str | None,
    device: str,
    dtype: str,
    attn: str,
    cache: Path | None = None,
    cache_size: float = GIGABYTES,
    reuse_static: float | None = None,
) -> "OmniQA":
    """See omniqa.engine.load; cache_size: in gigabytes."""
    from omniqa.engine import load

    say_what_it_knows(model)
    cache_bytes = round(cache_size * 10**9)
    return load(model, device, dtype, attn, cache=cache, cache_bytes=cache_bytes, reuse_static=reuse_static)


def say_what_it_knows(model: str | None) -> None:
    """Say on stderr what nano is, for its answers mean nothing elsewhere."""
    if model == NANO:
        console.note("nano is a tiny model that knows its own world of shapes and sounds, and nothing else")
