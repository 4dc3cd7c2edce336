"""The layouts that benchmarks are published in, each read by one small function.

docs/eval.md says where each layout is described.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from omniqa.errors import UsageError
from omniqa.eval.options import Options, holds_lettered_lines, option_fields
from omniqa.eval.questions import LETTERS, Groups, SetQuestion
from omniqa.eval.records import Record
from omniqa.jobs.question_files import place

AUTO, PLAIN = "auto", "jsonl"
_TASK = re.compile(r"task\d+")
_WORLDSENSE_NAMES = {"candidates", "task_domain", "audio_class"}
_LENGTHS = ("short", "medium", "long")  # what Video-MME calls durations
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,5}):(\d{2})", re.ASCII)
_MINUTES = (1, 5, 10, 30)  # the ends of OmniVideoBench's groups, which they include


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
    question: Callable[[Record, int], SetQuestion]


def read(content: Any, layout: str, path: Path) -> list[SetQuestion]:
    """The questions of a dataset's file.

    Args:
        content: as `files.load` gives it.
        layout: a key of LAYOUTS, or "auto", which looks at the first record.
        path: for messages.

    Raises:
        UsageError: the layout is not known or a record does not fit it.
    """
    chosen = LAYOUTS[find(content, layout, path)]
    questions = []
    for number, fields in enumerate(chosen.records(content)):
        where = f"{path.name}, {place(fields, number + 1)}"
        if not isinstance(fields, Mapping):
            raise UsageError(f"{where} is no object with named fields.")
        questions.append(chosen.question(Record(where, fields), number))
    if not questions:
        raise UsageError(f"{path} holds no questions{'' if layout == AUTO else f' in the layout {layout}'}.")
    return questions


def find(content: Any, layout: str, path: Path) -> str:
    """The key of LAYOUTS that this content is of. Raises UsageError as `read` does."""
    if layout not in (AUTO, *LAYOUTS):
        raise UsageError(f"There is no format {layout!r}: use {', '.join((AUTO, *LAYOUTS))}.", field="layout")
    fitting = [name for name, known in LAYOUTS.items() if _fits(known, content)]
    if layout != AUTO:
        published = [name for name in fitting if name != PLAIN]
        if published and layout not in (*fitting, PLAIN):
            raise UsageError(
                f"{path} is laid out as {published[0]}, not as {layout}.", field="layout", advice="Leave {layout} out."
            )
        return layout
    if fitting:
        return fitting[0]
    raise UsageError(
        f"{path} is in none of the layouts {', '.join(LAYOUTS)}.",
        field="layout",
        advice="docs/eval.md describes them; {layout} chooses one.",
    )


def _fits(layout: Layout, content: Any) -> bool:
    first = next(layout.records(content), None)
    return isinstance(first, Mapping) and layout.fits(first)


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda fields: all(name in fields for name in names)


def _rows(content: Any) -> Iterator[Any]:
    return iter(content if isinstance(content, list) else ())


def _plain(record: Record, number: int) -> SetQuestion:
    names = {
        "domain": "domain", "task": "task", "kind": "kind", "modality": "modality", "duration": "duration",
        "audio class": "audio_class", "sub-category": "sub_category",
    }  # fmt: skip
    clip, text, groups = record.text("video"), record.text("question"), record.groups(names)
    options = record.options()
    if options is None and holds_lettered_lines(text):
        raise UsageError(f"{record.where}: 'question' holds options on its lines; put them into 'options' as a list.")
    if options is None:
        question = SetQuestion(number, clip, text, record.text("answer"), None, groups, _open_chance(groups))
    else:
        question = _chosen(record, number, clip, text, options, "answer", groups)
    return replace(question, evidence=record.spans("evidence"))


def _open_chance(groups: Groups) -> float | None:
    if groups.get("domain") != "nano":
        return None
    from omniqa.nano.kinds import KINDS

    kind = KINDS.get(str(groups.get("kind", "")))
    return kind.chance if kind else None


def _chosen(
    record: Record, number: int, clip: str, text: str, options: Options, answer: str, groups: Groups
) -> SetQuestion:
    """A multiple-choice question; answer is the name of its field."""
    letter = record.letter(answer, options)
    texts, at = list(options.texts), LETTERS.index(letter)
    fault = None
    if at >= len(texts) or not texts[at]:
        fault = f"{record.where}: the right option, {letter}, is empty."
    while texts and not texts[-1]:
        texts.pop()
    return SetQuestion(
        number, clip, text, letter, tuple(texts), groups, 1 / options.offered, written=options.written, fault=fault
    )


def _mp4(clip: str, folder: str = "") -> str:
    """A clip's path from what a set calls it, which may be its name alone."""
    if "/" in clip or PurePosixPath(clip).suffix.lower() in _MEDIA:
        return clip
    return f"{folder}{clip}.mp4"


_MEDIA = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")


def _worldsense_records(content: Any) -> Iterator[Any]:
    """One row a question; or an object by clip, with the clip's fields and its questions as task0, task1, …."""
    first = next(_rows(content), None)
    if isinstance(first, Mapping) and not _WORLDSENSE_NAMES.isdisjoint(first):
        yield from _rows(content)
    for clip, fields in content.items() if isinstance(content, Mapping) else ():
        for task in filter(_TASK.fullmatch, fields) if isinstance(fields, Mapping) else ():
            asked = fields[task]
            yield {**fields, **asked, "video": clip} if isinstance(asked, Mapping) else asked


def _is_worldsense(fields: Mapping[str, Any]) -> bool:
    others = _is_videomme(fields) or _is_omnivideobench(fields)
    named = not _WORLDSENSE_NAMES.isdisjoint(fields) and "question" in fields
    return named and not others and bool(option_fields(fields))


def _worldsense(record: Record, number: int) -> SetQuestion:
    groups = {
        "domain": "domain", "task": "task_type", "task domain": "task_domain", "duration": "duration",
        "audio class": "audio_class", "sub-category": "sub_category",
    }  # fmt: skip
    clip = _mp4(record.text("video", "video_path", "video_id"), "videos/")
    text, options = record.text("question"), record.choices()
    return _chosen(record, number, clip, text, options, "answer", record.groups(groups))


def _is_videomme(fields: Mapping[str, Any]) -> bool:
    """The hub's rows by videoID, or VLMEvalKit's table, which calls it video."""
    table = "task_domain" not in fields and "video" in fields and fields.get("duration") in _LENGTHS
    return ("videoID" in fields or table) and bool(option_fields(fields))


def _videomme(record: Record, number: int) -> SetQuestion:
    groups = {"domain": "domain", "task": "task_type", "duration": "duration", "sub-category": "sub_category"}
    clip, text = _mp4(record.text("videoID", "video")), record.text("question")
    return _chosen(record, number, clip, text, record.choices(), "answer", record.groups(groups))


def _is_avut(fields: Mapping[str, Any]) -> bool:
    return "video_path" in fields and any(re.fullmatch("option_[A-Z]", name) for name in fields)


def _avut(record: Record, number: int) -> SetQuestion:
    groups = record.groups({"domain": "video_type", "task": "task_type"})
    clip, text = record.text("video_path"), record.text("question")
    return _chosen(record, number, clip, text, record.choices(), "answer", groups)


def _dailyomni(record: Record, number: int) -> SetQuestion:
    groups = record.groups({"domain": "video_category", "task": "Type", "duration": "video_duration"})
    clip, text = record.text("video_id"), record.text("Question")
    return _chosen(record, number, f"{clip}/{clip}_video.mp4", text, record.choices(), "Answer", groups)


def _omnivideobench_records(content: Any) -> Iterator[Any]:
    """One row a question; or a list of clips, each with a list of questions."""
    for clip in _rows(content):
        questions = clip.get("questions") if isinstance(clip, Mapping) else None
        if questions is None:
            yield clip
        for fields in questions if isinstance(questions, list) else ():
            yield {**clip, **fields} if isinstance(fields, Mapping) else fields


def _is_omnivideobench(fields: Mapping[str, Any]) -> bool:
    named = "correct_option" in fields or ("question_type" in fields and "audio_type" in fields)
    return named and bool(option_fields(fields))


def _omnivideobench(record: Record, number: int) -> SetQuestion:
    groups = record.groups({"domain": "video_type", "task": "question_type", "audio": "audio_type"})
    groups |= _by_minutes(record.fields.get("duration"))
    clip, text = _mp4(record.text("video", "video_path", "video_id")), record.text("question")
    answer = "correct_option" if "correct_option" in record.fields else "answer"
    return _chosen(record, number, clip, text, record.choices(), answer, groups)


def _by_minutes(duration: Any) -> dict[str, str]:
    """OmniVideoBench's groups by the clip's length, of "MM:SS" or "H:MM:SS"; what is not so is not grouped."""
    read = _CLOCK.fullmatch(duration.strip()) if isinstance(duration, str) else None
    if read is None:
        return {}
    hours, minutes, seconds = (int(part or 0) for part in read.groups())
    length = hours * 60 + minutes + seconds / 60
    above = 0
    for limit in _MINUTES:
        if length <= limit:
            return {"duration": f"{above}-{limit} min"}
        above = limit
    return {"duration": f"over {above} min"}


LAYOUTS = {
    "worldsense": Layout(_is_worldsense, _worldsense_records, _worldsense),
    "omnivideobench": Layout(_is_omnivideobench, _omnivideobench_records, _omnivideobench),
    "videomme": Layout(_is_videomme, _rows, _videomme),
    "avut": Layout(_is_avut, _rows, _avut),
    "dailyomni": Layout(_has("video_id", "Choice"), _rows, _dailyomni),
    PLAIN: Layout(_has("video", "question", "answer"), _rows, _plain),
}
