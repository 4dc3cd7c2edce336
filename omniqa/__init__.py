"""omniqa: answers questions about videos, from picture and sound.

import omniqa
qa = omniqa.load()  # the largest published model that fits this machine; "nano" is a small one that comes along
answer = qa.ask("talk.mp4", "Who speaks first?", method="omnidrop", retention=0.3)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from omniqa.errors import MediaError as MediaError
    from omniqa.errors import ModelError as ModelError
    from omniqa.errors import NotFiniteError as NotFiniteError
    from omniqa.errors import OmniqaError as OmniqaError
    from omniqa.errors import OutOfMemoryError as OutOfMemoryError
    from omniqa.errors import StorageError as StorageError
    from omniqa.errors import UsageError as UsageError
    from omniqa.media.clip import Clip as Clip
    from omniqa.media.clip import sample as sample
    from omniqa.media.sampling import ClipOptions as ClipOptions
    from omniqa.models.base import Turn as Turn
    from omniqa.pipeline.answer import Answer as Answer
    from omniqa.pipeline.conversation import Conversation as Conversation
    from omniqa.pipeline.encoded_clip import EncodedClip as EncodedClip
    from omniqa.pipeline.engine import OmniQA as OmniQA
    from omniqa.pipeline.load import load as load
    from omniqa.pipeline.trace import Trace as Trace
    from omniqa.report.page import save_report as save_report
    from omniqa.runtime.generation_options import GenerationOptions as GenerationOptions

_MODULES = {
    "omniqa.errors": (
        "MediaError", "ModelError", "NotFiniteError", "OmniqaError", "OutOfMemoryError", "StorageError", "UsageError",
    ),
    "omniqa.media.clip": ("Clip", "sample"),
    "omniqa.media.sampling": ("ClipOptions",),
    "omniqa.models.base": ("Turn",),
    "omniqa.pipeline.answer": ("Answer",),
    "omniqa.pipeline.conversation": ("Conversation",),
    "omniqa.pipeline.encoded_clip": ("EncodedClip",),
    "omniqa.pipeline.engine": ("OmniQA",),
    "omniqa.pipeline.load": ("load",),
    "omniqa.pipeline.trace": ("Trace",),
    "omniqa.report.page": ("save_report",),
    "omniqa.runtime.generation_options": ("GenerationOptions",),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_RENAMED = {
    "Decoding": "GenerationOptions", "EncodedVideo": "EncodedClip", "SampledClip": "Clip", "Sampling": "ClipOptions",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: `omniqa plan` and help must not wait for torch."""
    if name == "__all__":
        return sorted(_HOME)
    if name in _RENAMED:
        import warnings

        warnings.warn(f"omniqa.{name} is called omniqa.{_RENAMED[name]} now.", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names, those that are imported on first use among them."""
    return sorted([*_HOME, "__version__"])
