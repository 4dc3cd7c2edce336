"""How a question is put: in omniqa's words, or in those of the harnesses whose figures people quote.

The harnesses' texts are protocol, their slips included; docs/eval.md says what was read where. Open questions are no
part of their protocols and are put as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass

from omniqa.errors import UsageError
from omniqa.eval.questions import SetQuestion
from omniqa.models.base import OWN_SYSTEM_TEXT, PromptText

OMNIQA = "omniqa"

_BY_LETTER = "Answer with the option's letter from the given choices directly."
_RESPOND = "Respond with only the letter (A, B, C, or D) of the correct option.\n"
_SELECT = f"Select the best answer to the following multiple-choice question based on the video. {_RESPOND}"
_WATCH = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, select the best option "
    "that accurately addresses the question."
)
_FRAMES, _FRAMES_AND_SOUND = (
    f"These are the frames of a video{sound}. {_SELECT}" for sound in ("", " and the corresponding audio")
)
_ANALYZE = f"{OWN_SYSTEM_TEXT} " + (
    "Please analyze the video carefully and select the most appropriate answer from the given options."
)


@dataclass(frozen=True)
class _Parts:
    """What a text is made of. sound: whether the clip's sound is taken."""

    question: str
    options: tuple[str, ...]
    sound: bool

    @property
    def lines(self) -> str:
        return "\n".join(self.options)


def _lmms_eval_videomme(parts: _Parts) -> PromptText:
    head = (
        "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
        f"{_RESPOND}"
    )
    return PromptText(f"{head}{parts.question}\n{parts.lines}\n\n{_BY_LETTER}")


def _lmms_eval_worldsense(parts: _Parts) -> PromptText:
    return PromptText(f"{_WATCH}\n{_FRAMES_AND_SOUND}{parts.question}\n{parts.lines}\n")


def _vlmevalkit_question(parts: _Parts) -> str:
    return f"Question: {parts.question}\n{parts.lines}\nAnswer: "


def _vlmevalkit_videomme(parts: _Parts) -> PromptText:
    return PromptText(f"\n{_FRAMES}{_vlmevalkit_question(parts)}", system=None)


def _vlmevalkit_worldsense(parts: _Parts) -> PromptText:
    frames = _FRAMES_AND_SOUND if parts.sound else _FRAMES
    return PromptText(f"\n{frames}{_vlmevalkit_question(parts)}", _WATCH, system=None)


def _omnizip(parts: _Parts) -> PromptText:
    return PromptText(f"{parts.question}\nOptions:\n{parts.lines}\n{_BY_LETTER}", system=_ANALYZE)


def _seats_videomme(parts: _Parts) -> PromptText:
    return PromptText(_lmms_eval_videomme(parts).question, system="")


def _seats_dailyomni(parts: _Parts) -> PromptText:
    return PromptText(
        "Your task is to accurately answer multiple-choice questions based on the given video.\n"
        "Select the single most accurate answer from the given choices.\n"
        f"Question: {parts.question}\nChoices: {parts.lines}\n"
        "Your answer should be a capital letter representing your choice: A, B, C, or D. "
        "Don't generate any other text.\n",
        system=_ANALYZE,
    )


def _seats_omnivideobench(parts: _Parts) -> PromptText:
    return PromptText(
        "You are given a video. Based on the content of the video, answer the following question:\n\n"
        f"Question:\n{parts.question}\n\nOptions:\n{parts.lines}\n\n"
        "Answer with the option's letter directly(e.g., A, B, C, or D)."
        "If your access to the video content is limited, at least one option that is more likely than the others must "
        "be chosen.Mustn't give any other reason for can not choose!",
        system="",
    )


# By harness, then by layout. The first is also what sets get that the harness has no task for.
_TEXTS: dict[str, dict[str, Callable[[_Parts], PromptText]]] = {
    "lmms-eval": {"videomme": _lmms_eval_videomme, "worldsense": _lmms_eval_worldsense},
    "vlmevalkit": {"videomme": _vlmevalkit_videomme, "worldsense": _vlmevalkit_worldsense},
    "omnizip": {"avut": _omnizip, "worldsense": _omnizip},
    "seats": {
        "videomme": _seats_videomme,
        "worldsense": _omnizip,
        "dailyomni": _seats_dailyomni,
        "omnivideobench": _seats_omnivideobench,
    },
}
PROMPTS = (OMNIQA, *_TEXTS)


def check_prompt(name: str) -> None:
    """Raises UsageError for a name that is not in PROMPTS."""
    if name not in PROMPTS:
        raise UsageError(f"There is no prompt {name!r}: use {', '.join(PROMPTS)}.", field="prompt")


def task_of(prompt: str, layout: str) -> str:
    """The harness's task whose text a set of this layout gets; "" in omniqa's own words."""
    tasks = _TEXTS.get(prompt, {})
    return layout if layout in tasks else next(iter(tasks), "")


@dataclass(frozen=True)
class PromptStyle:
    """How the questions of a set are put.

    Attributes:
        name: one of PROMPTS.
        layout: the set's.
        hint: a line that open questions end with, or nothing.
        sound: whether the clips' sound is taken.
    """

    name: str = OMNIQA
    layout: str = ""
    hint: str = ""
    sound: bool = True

    def __post_init__(self) -> None:
        check_prompt(self.name)

    def prompt(self, question: SetQuestion) -> str | PromptText:
        """The question as the model gets it."""
        if self.name == OMNIQA or question.options is None:
            return question.prompt(self.hint)
        text = _TEXTS[self.name][task_of(self.name, self.layout)]
        return text(_Parts(question.text, question.lines, self.sound))
