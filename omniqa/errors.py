"""The errors omniqa raises, each with the exit code that the command line ends with.

Every message is one plain sentence or two: what is wrong, and what to do about it.
"""


class OmniqaError(Exception):
    """Base of every error omniqa raises on purpose."""

    exit_code = 1


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
    """Not enough memory on the host or the device.

    Attributes:
        problem: what is wrong.
        advice: what would need less; empty if whoever raises it does not know what was asked for.
    """

    exit_code = 5

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(f"{problem} {advice}".strip())
        self.problem = problem
        self.advice = advice


def first_line(error: BaseException | str) -> str:
    """What a library's error says, without the lines on its insides that follow."""
    return str(error).strip().partition("\n")[0]


SOME_FAILED = 6  # exit code of a long run that ended with some failures
CLIP_ERRORS = (MediaError, OutOfMemoryError, UsageError)  # one clip or question may fail by these; others end a run
