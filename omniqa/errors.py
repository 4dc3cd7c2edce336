"""The errors omniqa raises, each with the exit code that the command line ends with.

A message is one plain sentence: what is wrong. The advice says what to do about it. Both speak of options by their
Python names; only `omniqa.cli` turns these into flags.
"""

import re
from collections.abc import Callable

Spell = Callable[[str, str | None], str]
_NAMED = re.compile(r"\{(\w+)(?:=([^{}]*))?\}")


class OmniqaError(Exception):
    """Base of every error omniqa raises on purpose.

    Attributes:
        exit_code: what the command line ends with.
        message: what is wrong. If it begins with the name of `field`, that is the field.
        field: Python name of the option or argument at fault, as "max_frames".
        advice: what to do. Options stand in braces, alone or with a value: "{max_frames}", '{device="cpu"}'.
    """

    exit_code = 1

    def __init__(self, message: str, *, field: str | None = None, advice: str | None = None) -> None:
        super().__init__(message)
        self.message, self.field, self.advice = message, field, advice

    def __str__(self) -> str:
        return self.spelled(lambda name, value: name if value is None else f"{name}={value}")

    def spelled(self, spell: Spell) -> str:
        """Message and advice in one line.

        Args:
            spell: how an option is written, from its name and its value; the value is None if none is advised.
        """
        message, field = self.message, self.field or ""
        rest = message.removeprefix(field)
        if rest != message and rest[:1] in " :":
            message = spell(field, None) + rest
        advice = _NAMED.sub(lambda named: spell(named[1], named[2]), self.advice or "")
        return f"{message} {advice}".strip()


class UsageError(OmniqaError):
    """The request itself makes no sense: an unknown method, an option out of range."""

    exit_code = 2


class MediaError(OmniqaError):
    """The media can't be used: not found, not a video, broken, nothing in the asked range."""

    exit_code = 3


class StorageError(MediaError):
    """What holds the media fails: a disk, a file system, permissions. Nothing is wrong with the file's content."""


class ModelError(OmniqaError):
    """The model can't be found or loaded: wrong architecture, missing or truncated file."""

    exit_code = 4


class NotFiniteError(ModelError):
    """The model computed NaN or infinity in place of scores; its weights or its precision are at fault."""


class OutOfMemoryError(OmniqaError):
    """Not enough memory on the host or the device. Without advice, whoever raises it does not know what was asked."""

    exit_code = 5


def first_line(error: BaseException | str) -> str:
    """What a library's error says, without the lines on its insides that follow."""
    return str(error).strip().partition("\n")[0]


SOME_FAILED = 6  # exit code of a long run that ended with some failures
CLIP_ERRORS = (MediaError, OutOfMemoryError, UsageError)  # one clip or question may fail by these; others end a run
