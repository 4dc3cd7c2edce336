"""A question of a set: how it is put to the model, and what its answer is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase as LETTERS

__all__ = ["LETTERS", "Question"]


@dataclass(frozen=True)
class Question:
    """A question about a clip, and the true answer.

    Attributes:
        number: its place in the whole set, from 0.
        clip: the clip's name in the set.
        text: the question, without options.
        answer: one or a few words; with options, the letter.
        options: texts without letters, or None for an open question.
        groups: what it is counted by, as "task" → "counting".
        chance: the share of right answers by guessing; None where nobody knows.
    """

    number: int
    clip: str
    text: str
    answer: str
    options: tuple[str, ...] | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    chance: float | None = None

    def prompt(self, hint: str = "") -> str:
        """The question as it is asked, options included; `hint` is a line that only open questions end with."""
        if self.options is None:
            return f"{self.text}\n{hint}" if hint else self.text
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n".join([self.text, *lines, "Answer with the letter."])
