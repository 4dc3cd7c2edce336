"""Questions about a clip, each with the one true answer that follows from its script.

A kind of question is asked only where the script leaves exactly one answer: nobody is asked what is shown "while the
bell is heard" if bells are heard in two scenes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from omniqa.nano.facts import Facts, Span
from omniqa.nano.finding import AnsweredQuestion
from omniqa.nano.kinds import KINDS, Kind
from omniqa.nano.scenes import Script

LETTERS = "ABCD"
_CHOICES_SHARE = 0.4  # of the questions that can be asked either way


@dataclass(frozen=True)
class NanoQuestion:
    """A question and its answer.

    Attributes:
        kind: its kind, a key of KINDS.
        task: the group of kinds, as benchmarks call it.
        modality: "video", "audio" or "both": what has to be seen or heard to know the answer.
        text: the question, without options.
        answer: one or a few words; with options, the letter.
        options: four texts, or None for an open question.
        evidence: spans (start, end) in seconds in which that lies which tells the answer.
    """

    kind: str
    task: str
    modality: str
    text: str
    answer: str
    options: tuple[str, ...] | None
    evidence: tuple[Span, ...]

    @property
    def prompt(self) -> str:
        """The question as it is asked, options included."""
        if self.options is None:
            return self.text
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True)]
        return "\n".join([self.text, *lines, "Answer with the letter."])

    @property
    def meaning(self) -> str:
        """The answer in words, also where it is a letter."""
        return self.answer if self.options is None else self.options[LETTERS.index(self.answer)]


def questions(script: Script, rounds: int = 1, every: bool = False) -> list[NanoQuestion]:
    """Questions about a clip, in random order; the same script gives the same questions.

    Args:
        script: the clip.
        rounds: how often each kind is tried; more rounds give more questions, none of them twice.
        every: of every kind; else of those that nano has learned.
    """
    facts, rng = Facts(script), Random(f"questions {script.seed} {script.seconds} {len(script.scenes)}")
    kinds = [kind for kind in KINDS.values() if kind.learned or every]
    asked: dict[str, NanoQuestion] = {}
    for _ in range(rounds):
        for kind in kinds:
            for question in _ask(kind, facts, rng):
                asked.setdefault(question.prompt, question)
    return rng.sample(list(asked.values()), len(asked))


def description(script: Script) -> str:
    """The whole clip in order: "red circle, beep; blue star and green ring, silence"."""
    return KINDS["description"].find(Facts(script))[0].answer


def chance(kind: str, choices: bool = False) -> float:
    """The share of right answers of someone who only knows the kind of question and what can be answered to it.

    Args:
        kind: a key of KINDS.
        choices: whether there are four options.
    """
    return 1 / len(LETTERS) if choices else KINDS[kind].chance


def _ask(kind: Kind, facts: Facts, rng: Random) -> Iterator[NanoQuestion]:
    """One question of a kind, or none."""
    found = _pick(kind, kind.find(facts), rng)
    if found is None:
        return
    choices = kind.choices and (not found.open or rng.random() < _CHOICES_SHARE)
    if not (found.open or choices):
        return
    text = rng.choice(kind.wordings).format(**found.names)
    answer, options = found.answer, None
    if choices:
        options = _options(kind, found, rng)
        answer = LETTERS[options.index(found.answer)]
    yield NanoQuestion(kind.name, kind.task, kind.modality, text, answer, options, found.evidence)


def _pick(kind: Kind, found: list[AnsweredQuestion], rng: Random) -> AnsweredQuestion | None:
    if kind.even:
        # Each answer is as likely as any other, whatever a clip offers more of; so all must be on offer.
        if {one.answer for one in found} < set(kind.answers):
            return None
        answer = rng.choice(kind.answers)
        found = [one for one in found if one.answer == answer]
    if not found:
        return None
    picked = rng.choice(found)
    return picked if rng.random() < picked.share else None


def _options(kind: Kind, found: AnsweredQuestion, rng: Random) -> tuple[str, ...]:
    """The answer among three wrong ones: first such that are in the clip, for else looking would be enough."""
    likely = [label for label in dict.fromkeys(found.rivals) if label != found.answer and label not in found.also_true]
    shut_out = {found.answer, *found.also_true, *likely}
    others = [label for label in kind.answers if label not in shut_out]
    wrong = [*rng.sample(likely, len(likely)), *rng.sample(others, min(3, len(others)))][:3]
    return tuple(rng.sample([found.answer, *wrong], 4))
