"""The layouts that benchmarks are published in, each read by one small function.

docs/eval.md says where each layout is described.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omniqa.errors import UsageError
from omniqa.eval.questions import Question
from omniqa.eval.records import Record
from omniqa.jobs.question_files import place

AUTO = "auto"
_AVUT_OPTIONS = [f"option_{letter}" for letter in "ABCDEFGH"]


@dataclass(frozen=True)
class Layout:
    """A way in which a dataset's file is laid out.

    Attributes:
        fits: whether a record, one of those that `records` gives, is of this layout.
        records: every question's fields, from the file's content.
        question: a question from its fields and its number.
    """

    fits: Callable[[Mapping[str, Any]], bool]
    records: Callable[[Any], Iterator[Any]]
    question: Callable[[Record, int], Question]


def read(content: Any, layout: str, path: Path) -> list[Question]:
    """The questions of a dataset's file.

    content: as `files.load` gives it. layout: a key of LAYOUTS, or "auto", which looks at the first record.
    path: for messages. Raises UsageError where the layout is not known or a record does not fit it.
    """
    if layout not in (AUTO, *LAYOUTS):
        raise UsageError(f"There is no format {layout!r}: use {', '.join((AUTO, *LAYOUTS))}.", field="layout")
    chosen = _guess(content, path) if layout == AUTO else LAYOUTS[layout]
    questions = []
    for number, fields in enumerate(chosen.records(content)):
        where = f"{path.name}, {place(fields, number + 1)}"
        if not isinstance(fields, Mapping):
            raise UsageError(f"{where} is no object with named fields.")
        questions.append(chosen.question(Record(where, fields), number))
    if not questions:
        raise UsageError(f"{path} holds no questions{'' if layout == AUTO else f' in the layout {layout}'}.")
    return questions


def _guess(content: Any, path: Path) -> Layout:
    for layout in LAYOUTS.values():
        first = next(layout.records(content), None)
        if isinstance(first, Mapping) and layout.fits(first):
            return layout
    known = ", ".join(LAYOUTS)
    raise UsageError(
        f"{path} is in none of the layouts {known}.",
        field="layout",
        advice="docs/eval.md describes them; {layout} chooses one.",
    )


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda fields: all(name in fields for name in names)


def _rows(content: Any) -> Iterator[Any]:
    return iter(content if isinstance(content, list) else ())


def _plain(record: Record, number: int) -> Question:
    options = record.choices("options") if record.fields.get("options") else None
    answer = record.letter("answer", options) if options else record.text("answer")
    names = ("domain", "task", "kind", "modality")
    groups = record.groups({name: name for name in names})
    chance = _chance(groups, options)
    return Question(number, record.text("video"), record.text("question"), answer, options, groups, chance)


def _chance(groups: Mapping[str, str], options: tuple[str, ...] | None) -> float | None:
    if options or groups.get("domain") != "nano":
        return 1 / len(options) if options else None
    from omniqa.nano.kinds import KINDS

    kind = KINDS.get(groups.get("kind", ""))
    return kind.chance if kind else None


def _chosen(
    record: Record, number: int, clip: str, text: str, options: tuple[str, ...], answer: str, groups: Mapping[str, str]
) -> Question:
    """A multiple-choice question; text, answer and groups are names of fields."""
    letter = record.letter(answer, options)
    return Question(number, clip, record.text(text), letter, options, record.groups(groups), 1 / len(options))


def _worldsense_records(content: Any) -> Iterator[Any]:
    """An object by clip, which holds the clip's fields and its questions as task0, task1, …."""
    for clip, fields in content.items() if isinstance(content, Mapping) else ():
        tasks = [name for name in fields if name.startswith("task")] if isinstance(fields, Mapping) else []
        for task in tasks:
            if isinstance(fields[task], Mapping):
                yield {**fields, **fields[task], "video": clip}


def _worldsense(record: Record, number: int) -> Question:
    groups = {"domain": "domain", "task": "task_type", "task domain": "task_domain"}
    clip = f"videos/{record.text('video')}.mp4"
    return _chosen(record, number, clip, "question", record.choices("candidates"), "answer", groups)


def _videomme(record: Record, number: int) -> Question:
    groups = {"domain": "domain", "task": "task_type", "duration": "duration"}
    clip = f"{record.text('videoID')}.mp4"
    return _chosen(record, number, clip, "question", record.choices("options"), "answer", groups)


def _avut(record: Record, number: int) -> Question:
    options = tuple(record.text(name) for name in _AVUT_OPTIONS if record.fields.get(name) not in (None, ""))
    groups = {"domain": "video_type", "task": "task_type"}
    return _chosen(record, number, record.text("video_path"), "question", options, "answer", groups)


def _dailyomni(record: Record, number: int) -> Question:
    groups = {"domain": "video_category", "task": "Type", "duration": "video_duration"}
    clip = record.text("video_id")
    return _chosen(record, number, f"{clip}/{clip}_video.mp4", "Question", record.choices("Choice"), "Answer", groups)


def _omnivideobench_records(content: Any) -> Iterator[Any]:
    """A list of clips, each with a list of questions."""
    for clip in _rows(content):
        questions = clip.get("questions") if isinstance(clip, Mapping) else None
        for fields in questions if isinstance(questions, list) else ():
            yield {**clip, **fields} if isinstance(fields, Mapping) else fields


def _omnivideobench(record: Record, number: int) -> Question:
    groups = {"domain": "video_type", "task": "question_type", "audio": "audio_type"}
    clip = f"{record.text('video')}.mp4"
    return _chosen(record, number, clip, "question", record.choices("options"), "correct_option", groups)


LAYOUTS = {
    "worldsense": Layout(_has("candidates", "task_type"), _worldsense_records, _worldsense),
    "omnivideobench": Layout(_has("correct_option", "options"), _omnivideobench_records, _omnivideobench),
    "videomme": Layout(_has("videoID", "options"), _rows, _videomme),
    "avut": Layout(_has("video_path", "option_A"), _rows, _avut),
    "dailyomni": Layout(_has("video_id", "Choice"), _rows, _dailyomni),
    "jsonl": Layout(_has("video", "question", "answer"), _rows, _plain),
}
