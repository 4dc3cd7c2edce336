"""How a set's questions are put and its answers scored: what a figure is comparable by."""

from dataclasses import dataclass
from functools import cached_property

from omniqa.eval.prompts import OMNIQA, PromptStyle, task_of
from omniqa.eval.scoring import STRICT, Scorer


@dataclass(frozen=True)
class Protocol:
    """A prompt and a scoring, for a set of one layout.

    Attributes:
        prompt: one of `prompts.PROMPTS`.
        scoring: one of `scoring.SCORINGS`.
        layout: the set's.
        hint: a line that open questions end with, or nothing.
        sound: whether the clips' sound is taken.
    """

    prompt: str = OMNIQA
    scoring: str = STRICT
    layout: str = ""
    hint: str = ""
    sound: bool = True

    @cached_property
    def style(self) -> PromptStyle:
        """How questions are put.

        Raises:
            UsageError: there is no such prompt.
        """
        return PromptStyle(self.prompt, self.layout, self.hint, self.sound)

    @cached_property
    def scorer(self) -> Scorer:
        """How answers are scored.

        Raises:
            UsageError: there is no such scoring.
        """
        return Scorer(self.scoring, self.layout)

    @property
    def names(self) -> dict[str, str]:
        """For reports; a task is the harness's own whose text or rule is taken, "" for omniqa's."""
        return {
            "prompt": self.prompt,
            "prompt_task": task_of(self.prompt, self.layout),
            "scoring": self.scoring,
            "scoring_task": self.scorer.task,
        }
