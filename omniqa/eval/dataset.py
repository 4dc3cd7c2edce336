"""A set of questions about clips, from a file or from nano's world."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from omniqa.eval import layouts
from omniqa.eval.nano import NanoClips
from omniqa.eval.questions import SetQuestion
from omniqa.jobs import question_files as files
from omniqa.jobs.clips import Clips, MediaFolder
from omniqa.media.sampling import ClipOptions


@dataclass(frozen=True)
class Dataset:
    """Questions, and where their clips come from.

    Attributes:
        name: what the report calls it.
        layout: as `layouts.find` names it; "nano" for nano's.
        identity: JSON values; of sets with the same identity, a question's number is the same question.
    """

    name: str
    questions: Sequence[SetQuestion]
    clips: Clips
    layout: str
    identity: dict[str, Any]


def from_file(path: Path, media: Path | None, layout: str, sampling: Callable[[str], ClipOptions]) -> Dataset:
    """A set from a file, with clips from below `media`, by default the file's own folder.

    Args:
        sampling: which frames and what sound are used, by the set's layout.

    Raises:
        UsageError: the file can't be read as such.
        MediaError: none of its clips is there.
    """
    content = files.load(path)
    found = layouts.find(content, layout, path)
    questions = layouts.read(content, found, path)
    clips = MediaFolder(media or path.parent, sampling(found))
    clips.check(dict.fromkeys(question.clip for question in questions))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Dataset(path.name, questions, clips, found, {"dataset": f"sha256:{digest}", "format": layout})


def from_nano(clips: NanoClips, count: int) -> Dataset:
    """The first `count` clips of nano's test set.

    Raises:
        UsageError: it has not so many.
    """
    made = {name: value for name, value in asdict(clips).items() if name != "sampling"}
    return Dataset("nano", clips.questions(count), clips, "nano", {"dataset": "nano", **made})


def limited(questions: Sequence[SetQuestion], limit: int | None, seed: int) -> list[SetQuestion]:
    """At most `limit` questions: clips are drawn, and all questions of each are taken, until there are enough.

    The same seed gives the same order, so that a higher limit only adds questions.
    """
    if limit is None or limit >= len(questions):
        return list(questions)
    names = sorted({question.clip for question in questions})
    Random(f"limit {seed}").shuffle(names)
    place = {clip: index for index, clip in enumerate(names)}
    return sorted(questions, key=lambda question: (place[question.clip], question.number))[:limit]
