"""A question of a set: how it is put to the model, and what its answer is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase as LETTERS

__all__ = ["LETTERS", "Groups", "SetQuestion"]

Groups = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class SetQuestion:
    """A question about a clip, and the true answer.

    Attributes:
        number: its place in the whole set, from 0.
        clip: the clip's name in the set.
        text: the question, without options.
        answer: one or a few words; with options, the letter.
        options: texts without letters, or None for an open question. An empty text is a letter that is not offered.
        groups: what it is counted by, as "task" → "counting"; a tuple counts in each of its groups.
        chance: the share of right answers by guessing; None where nobody knows.
        written: the options as the set writes them, with their letters; empty: as omniqa writes them.
        evidence: spans (start, end) in seconds on the clip's clock in which the answer is seen or heard; empty if the
            set does not say.
        fault: why nobody can answer it right, as a message; None in a question that can be asked.
    """

    number: int
    clip: str
    text: str
    answer: str
    options: tuple[str, ...] | None = None
    groups: Groups = field(default_factory=dict)
    chance: float | None = None
    written: tuple[str, ...] = field(default=(), compare=False)
    evidence: tuple[tuple[float, float], ...] = field(default=(), compare=False)
    fault: str | None = field(default=None, compare=False)

    @property
    def offered(self) -> dict[str, str]:
        """The options that are there, by letter."""
        return {letter: option for letter, option in zip(LETTERS, self.options or (), strict=False) if option}

    @property
    def lines(self) -> tuple[str, ...]:
        """The options as the set writes them, one a line; where it has no letters, as omniqa writes them."""
        return self.written or tuple(f"{letter}. {option}" for letter, option in self.offered.items())

    def in_groups(self, by: str) -> tuple[str, ...]:
        """The groups that it counts in, of one way to group; none where nothing is known."""
        group = self.groups.get(by, ())
        return (group,) if isinstance(group, str) else group

    def prompt(self, hint: str = "") -> str:
        """The question as it is asked, options included; `hint` is a line that only open questions end with."""
        if self.options is None:
            return f"{self.text}\n{hint}" if hint else self.text
        lines = [f"{letter}. {option}" for letter, option in self.offered.items()]
        return "\n".join([self.text, *lines, "Answer with the letter."])
