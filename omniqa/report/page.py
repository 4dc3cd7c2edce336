"""Answers and the clip they are about → one HTML file that needs nothing else."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from omniqa.errors import UsageError
from omniqa.media.clip import Clip
from omniqa.media.source import path_of
from omniqa.pipeline.answer import Answer
from omniqa.report.chart import Chart
from omniqa.report.data import Figures, Run, run_of, shown, words_beside
from omniqa.report.film import Film, Filmed, film
from omniqa.report.media import embedded
from omniqa.terminal import LAYOUT, printable

_ASSETS = Path(__file__).parent / "assets"
_PARTS = {"style": ("timeline.css", "report.css"), "script": ("timeline.js", "report.js")}


def render(
    answers: Sequence[Answer],
    video: Filmed | None = None,
    *,
    figures: Sequence[Figures] | None = None,
    embed_media: bool = False,
    pictures: Film | None = None,
) -> str:
    """The report of answers about one clip, as HTML.

    The file is decoded once more for its frames and its sound; an answer does not hold them.

    Args:
        answers: about the same clip, taken in the same way; at least one.
        video: the file, or the `Clip` that was asked about; None is the file that the first answer names.
        figures: what a comparison knows of each answer, in their order.
        embed_media: put the file itself into the page, with marks to jump to.
        pictures: of the clip, if `film` has made them before.

    Raises:
        MediaError: the file can't be used, or has changed since.
        UsageError: the answers are about different clips, or the clip is no file and is not given.
    """
    first = answers[0]
    if any(other.asked.shape != first.asked.shape or other.asked.start_s != first.asked.start_s for other in answers):
        raise UsageError("One report is about one clip, taken in one way; these answers are about several.")
    source = first.video if video is None else video
    pictures = pictures or film(source, first.asked)
    media = _embedded(source) if embed_media else None
    told = figures or [Figures()] * len(answers)
    runs = [run_of(answer, one) for answer, one in zip(answers, told, strict=True)]
    return _filled(answers, runs, pictures, media)


def save_report(path: str | Path, answers: Sequence[Answer], video: Filmed | None = None, **how: Any) -> None:
    """Write what `render` makes to `path`. Arguments and errors are those of `render`, and OSError."""
    Path(path).write_text(render(answers, video, **how), encoding="utf-8")


def _embedded(source: Filmed) -> tuple[str, str]:
    if isinstance(source, Clip):
        raise UsageError("A clip made of arrays has no file to embed in a report.", field="embed_media")
    return embedded(path_of(source))


def _filled(answers: Sequence[Answer], runs: Sequence[Run], pictures: Film, media: tuple[str, str] | None) -> str:
    clip = shown(answers[0])
    script = _asset("script")
    data = {
        "clip": asdict(clip),
        "runs": [run.to_dict() for run in runs],
        "second": [_url(frame) for frame in pictures.frames[1::2]],
    }
    page = _environment().get_template("report.html")
    return page.render(
        clip=clip,
        runs=runs,
        pieces=_beside_first(runs),
        several_questions=len({run.question for run in runs}) > 1,
        charts=[Chart.of(run.layers) for run in runs],
        data=data,
        frames=[_url(frame) for frame in pictures.frames[::2]],
        mel=_url(pictures.mel) if pictures.mel else None,
        media=media,
        style=Markup(_asset("style")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _beside_first(runs: Sequence[Run]) -> list[tuple[tuple[str, bool], ...]]:
    """Each answer in pieces, beside the first answer to the same question."""
    firsts: dict[str, str] = {}
    return [words_beside(firsts.setdefault(run.question, run.answer), run.answer) for run in runs]


def _url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


@cache
def _asset(name: str) -> str:
    return "\n".join((_ASSETS / part).read_text(encoding="utf-8") for part in _PARTS[name])


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("omniqa.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["printable"] = lambda text: printable(str(text), LAYOUT)
    made.filters["clock"] = clock
    made.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    return made


def clock(seconds: float) -> str:
    """A time on the file's clock: "4.5 s", or from a minute on "1:04.5"."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    shown_rest = f"{rest / 10:g}"
    if tenths < 600:
        return f"{shown_rest} s"
    padded = shown_rest if rest >= 100 else f"0{shown_rest}"
    return f"{hours}:{minutes:02}:{padded}" if hours else f"{minutes}:{padded}"
