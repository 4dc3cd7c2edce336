"""Loading the model that a command was given."""

from typing import TYPE_CHECKING

from omniqa.cli import console
from omniqa.model.checkpoint import NANO

if TYPE_CHECKING:
    from omniqa.engine import OmniQA


def load_model(model: str | None, device: str, dtype: str, attn: str) -> "OmniQA":
    """See omniqa.engine.load. Says on stderr what nano is, for its answers mean nothing elsewhere."""
    from omniqa.engine import load

    if model == NANO:
        console.note("nano is a tiny model that knows its own world of shapes and sounds, and nothing else")
    return load(model, device, dtype, attn)
