"""What is asked about which clip."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from omniqa import json_output, terminal
from omniqa.errors import UsageError
from omniqa.jobs import question_files as files
from omniqa.jobs.clips import MEDIA_SUFFIXES, ClipPath, one_spelling
from omniqa.media.access import is_address
from omniqa.models.base import QUESTION_CHARACTERS, check_length
from omniqa.strict_json import text_flaw

KINDS = (".jsonl", ".json", ".csv", ".tsv")
_RECORD_BYTES = 2**25  # so that a line of results, which carries the record's fields, is within its own limit
_ENDS = "?!.…\uff1f\uff01\u3002\u061f"  # of a question or a sentence, Chinese and Arabic ones among them
_NEARLY = 0.8  # share of a name's characters that agree with those of a file
_OWN = ("video", "question", "id")  # fields with a meaning; all others are carried through


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        fields: what came with it and is carried through to its result.
        id: its own, if it has one that no other has.
        key: what else tells it from others about the same clip.
    """

    text: str
    key: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


class Task(NamedTuple):
    """A clip, and the questions about it."""

    clip: ClipPath
    questions: Sequence[Question]

    def asked(self) -> Iterator[tuple[str, Question]]:
        """The questions, each with its id: its own, or one made of the clip's name and the question's text."""
        times: Counter[str] = Counter()
        for question in self.questions:
            times[question.key] += 1
            yield question.id or _digest(self.clip.name, question.key, times[question.key]), question


def _digest(name: str, key: str, time: int) -> str:
    text = b"\0".join([os.fsencode(name), key.encode("utf-8", "surrogateescape"), *[b"again"] * (time - 1)])
    return hashlib.sha256(text).hexdigest()[:16]


def for_all(clips: Iterable[ClipPath], texts: Sequence[str]) -> list[Task]:
    """The same questions about every clip.

    Raises:
        UsageError: one is empty, or holds what is no character.
    """
    if not all(text.strip() for text in texts):
        raise UsageError("A question is empty.")
    for text in texts:
        check_length(text)
        if wrong := text_flaw(text):
            raise UsageError(f"A question {wrong}.")
    questions = tuple(Question(text, text) for text in texts)
    return [Task(clip, questions) for clip in clips]


def reads_like_question(text: str) -> bool:
    """Whether an argument that could be a video's name is a question: no such file, and several words or a sentence.

    What is named as media, lies in a folder that exists, or nearly has the name of a file here, is a mistyped name.
    """
    words = text.split()
    if os.path.lexists(text) or is_address(text) or not words or (len(words) == 1 and words[0][-1] not in _ENDS):
        return False
    folder, name = os.path.split(text)
    if Path(name).suffix.lower() in MEDIA_SUFFIXES or (folder and os.path.isdir(folder)):
        return False
    try:
        here = os.listdir()
    except OSError:  # a folder that can't be listed has no names to compare with
        here = []
    return not get_close_matches(text, here, n=1, cutoff=_NEARLY)


def from_file(path: Path, clips: Sequence[ClipPath], folder: str | None) -> list[Task]:
    """The questions of a file; "-" reads JSON lines from stdin.

    A record has a `question`, and a `video` or not: where none has, each question is about each of the `clips`. It may
    have an `id`; whatever else it has is carried through.
    folder: below which the named videos are; None is the file's own.

    Raises:
        UsageError: the file can't be read, a record lacks what it needs, or an id is there twice.
    """
    records = _records(path)
    _check_ids(records)
    named = [bool(fields.get("video")) for _, fields in records]
    if any(named) and not all(named):
        where = records[named.index(False)][0]
        raise UsageError(f"{where} has no video, and others have. Name one in each, or in none.")
    if not any(named):
        if not clips:
            raise UsageError(f"{path} names no videos. Give files or folders to ask about, too.")
        questions = tuple(_question(where, fields) for where, fields in records)
        return [Task(clip, questions) for clip in clips]
    if clips and folder is None:
        raise UsageError(f"{path} names its videos. Leave out the others, or give the one folder that they are in.")
    below = folder if folder is not None else "" if path == Path("-") else str(path.parent)
    tasks: dict[str, list[Question]] = {}
    for where, fields in records:
        tasks.setdefault(one_spelling(_text(where, fields, "video")), []).append(_question(where, fields))
    return [Task(ClipPath(name, _below(below, name)), asked) for name, asked in tasks.items()]


def _below(folder: str, name: str) -> str:
    return name if is_address(name) else os.path.normpath(os.path.join(folder, name))


def _records(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The objects of a file, each with what messages call it."""
    if path != Path("-") and path.suffix.lower() not in KINDS:
        raise UsageError(f"{path}: a file of questions ends in {', '.join(KINDS)}; - reads JSON lines from stdin.")
    values = _from_stdin() if path == Path("-") else files.load(path)
    if not isinstance(values, list) or not values:
        raise UsageError(f"{path} holds no questions.")
    records = []
    for number, fields in enumerate(values, start=1):
        where = f"{path}, {files.place(fields, number)},"
        if not isinstance(fields, Mapping):
            raise UsageError(f"{where} is no object with named fields.")
        if len(json_output.dumps(fields)) > _RECORD_BYTES:
            raise UsageError(f"{where} takes more than {_RECORD_BYTES:,} bytes as JSON.")
        records.append((where, fields))
    return records


def _from_stdin() -> list[files.QuestionRecord]:
    try:
        return files.json_lines(files.decode(files.join(terminal.stdin_pieces())))
    except ValueError as error:
        raise UsageError(f"The questions on stdin can't be read: {error}.") from error


def _question(where: str, fields: Mapping[str, Any]) -> Question:
    text = _text(where, fields, "question")
    if len(text) > QUESTION_CHARACTERS:
        raise UsageError(f"{where} has {len(text):,} characters; at most {QUESTION_CHARACTERS:,} are taken.")
    carried = {name: value for name, value in fields.items() if name not in _OWN}
    own = _id(where, fields)
    if own is None:
        return Question(text, text, carried)
    return Question(text, own, carried, own if fields.get("video") else None)


def _text(where: str, fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where} has no {name}.")
    return value


def _id(where: str, fields: Mapping[str, Any]) -> str | None:
    """A record's own id, as text; None where it has none."""
    own = fields.get("id")
    if own is None:
        return None
    if isinstance(own, bool) or not isinstance(own, str | int | float) or not str(own).strip():
        raise UsageError(f"{where} has the id {own!r:.60}. An id is a text or a number.")
    return str(own)


def _check_ids(records: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Whether every id stands once. Raises UsageError, which names the id and both records."""
    seen: dict[str, str] = {}
    for where, fields in records:
        own = _id(where, fields)
        if own is not None and seen.setdefault(own, where) != where:
            first = seen[own].removesuffix(",")
            raise UsageError(f"{where} has the id {own!r}, which {first} has, too. Every id stands once.")
