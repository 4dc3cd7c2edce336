"""Loading the model that a command was given."""

from typing import TYPE_CHECKING

from omniqa.cli import console, options
from omniqa.model.checkpoint import NANO

if TYPE_CHECKING:
    from omniqa.engine import OmniQA


def load_model(loading: options.Loading, encoding: options.Encoding) -> "OmniQA":
    """The model; what it is, is said first."""
    say_what_it_knows(loading.model)
    return load_silently(loading, encoding)


def load_silently(loading: options.Loading, encoding: options.Encoding) -> "OmniQA":
    """The model; other processes may call this, too."""
    from omniqa.engine import load

    return load(
        loading.model,
        loading.device,
        loading.dtype,
        loading.attn,
        cache=encoding.cache,
        cache_bytes=round(encoding.cache_size * 10**9),
        reuse_static=encoding.reuse_static,
    )


def say_what_it_knows(model: str | None) -> None:
    """Say on stderr what nano is, for its answers mean nothing elsewhere."""
    if model == NANO:
        console.note("nano is a tiny model that knows its own world of shapes and sounds, and nothing else")
