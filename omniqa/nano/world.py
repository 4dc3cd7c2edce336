"""nano's world in one place: scripts to train on, scripts to test with, and what is made of them."""

from collections.abc import Iterator
from itertools import count

from omniqa.errors import UsageError
from omniqa.nano.picture import frame_at, frames
from omniqa.nano.questions import NanoQuestion, chance, description, questions
from omniqa.nano.scenes import Script, draw
from omniqa.nano.sound import RATE, waveform

__all__ = [
    "FIRST_TRAINING_SEED",
    "RATE",
    "NanoQuestion",
    "Script",
    "chance",
    "description",
    "draw",
    "frame_at",
    "frames",
    "questions",
    "test_scripts",
    "training_scripts",
    "waveform",
]

FIRST_TRAINING_SEED = 1_000_000  # all seeds below are for tests, and training never sees them


def test_scripts(n: int, seconds: float = 8.0, scenes: int = 2) -> list[Script]:  # noqa: PT028 (no test)
    """The first n clips of the fixed test set.

    Raises:
        UsageError: there are not so many, or a clip can't have so many scenes.
    """
    if not 0 <= n <= FIRST_TRAINING_SEED:
        raise UsageError(f"The test set has {FIRST_TRAINING_SEED} clips, not {n}.")
    return [draw(seed, seconds, scenes) for seed in range(n)]


test_scripts.__test__ = False  # type: ignore[attr-defined]  # no test of its own, whatever pytest makes of the name


def training_scripts(seed: int = FIRST_TRAINING_SEED, seconds: float = 8.0, scenes: int = 2) -> Iterator[Script]:
    """Clips without end to train on, of seeds from `seed` on.

    Raises:
        UsageError: the seed is one of the test set, or a clip can't have so many scenes.
    """
    if seed < FIRST_TRAINING_SEED:
        raise UsageError(
            f"Seeds to train on are {FIRST_TRAINING_SEED} and above, not {seed}: those below are for tests."
        )
    return (draw(number, seconds, scenes) for number in count(seed))
