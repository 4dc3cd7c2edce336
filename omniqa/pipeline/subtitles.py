"""Answers as subtitles: one cue a question, over the strongest span of its evidence."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from omniqa.terminal import printable

if TYPE_CHECKING:
    from omniqa.pipeline.answer import Answer

_LOOK_ALIKES = str.maketrans("<>{}", "\u2039\u203a\u2774\u2775")


class Cue(NamedTuple):
    """A text that is shown from start_s to end_s."""

    start_s: float
    end_s: float
    text: str


def subtitles(answers: "Sequence[Answer]", suffix: str) -> str:
    """The content of a subtitle file, one cue an answer, over the strongest span of its evidence.

    Answers without evidence give none.

    Args:
        answers: about one clip.
        suffix: ".srt" or ".vtt".
    """
    with_spans = ((answer, spans[0]) for answer in answers if (spans := answer.evidence_spans))
    return write_cues([Cue(span.start_s, span.end_s, answer.text) for answer, span in with_spans], suffix)


def write_cues(cues: Iterable[Cue], suffix: str) -> str:
    """The content of a subtitle file, cues in the order of their times.

    Text stays text: it can't end a cue, begin another, or be taken for markup.

    Args:
        cues: in any order.
        suffix: ".srt" or ".vtt".
    """
    point, escape = (".", _vtt_text) if suffix == ".vtt" else (",", _srt_text)
    written = [
        f"{number}\n{_clock(start, point)} --> {_clock(end, point)}\n{escape(_one_paragraph(text))}\n"
        for number, (start, end, text) in enumerate(sorted(cues, key=lambda cue: cue[:2]), start=1)
    ]
    return "\n".join([*(["WEBVTT\n"] if suffix == ".vtt" else []), *written])


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds; times before 0 are 0."""
    whole = round(1000 * max(0.0, seconds))
    minutes, milliseconds = divmod(whole, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _one_paragraph(text: str) -> str:
    """The text without empty lines, which end a cue, and without control characters."""
    lines = (printable(" ".join(line.split())) for line in text.splitlines())
    return "\n".join(line for line in lines if line) or "…"


def _vtt_text(text: str) -> str:
    """WebVTT has character references; "-->" can't stand in a cue."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _srt_text(text: str) -> str:
    """SubRip has no escapes: look-alikes stand for what players take for tags, styles or times."""
    return text.translate(_LOOK_ALIKES)
