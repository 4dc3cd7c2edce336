"""omniqa: answers questions about videos, from picture and sound.

import omniqa
qa = omniqa.load("Qwen/Qwen2.5-Omni-7B", device="cuda")
answer = qa.ask("talk.mp4", "Who speaks first?", method="omnidrop", retention=0.3)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from omniqa.media.clip import SampledClip
    from omniqa.media.sampling import Sampling
    from omniqa.pipeline.answer import Answer
    from omniqa.pipeline.engine import EncodedVideo, OmniQA, load
    from omniqa.runtime.generation_options import Decoding

__all__ = ["Answer", "Decoding", "EncodedVideo", "OmniQA", "SampledClip", "Sampling", "load"]

_HOMES = {
    "Answer": "omniqa.pipeline.answer",
    "Decoding": "omniqa.runtime.generation_options",
    "EncodedVideo": "omniqa.pipeline.engine",
    "OmniQA": "omniqa.pipeline.engine",
    "SampledClip": "omniqa.media.clip",
    "Sampling": "omniqa.media.sampling",
    "load": "omniqa.pipeline.engine",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `omniqa --help` and `omniqa plan` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, those that are imported on first use among them."""
    return sorted([*__all__, "__version__"])
