"""Subtitle files of a batch: one for each clip, with a cue for each of its answers."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from omniqa.errors import UsageError
from omniqa.jobs.clips import ClipPath
from omniqa.jobs.jsonl_store import Row, write_whole
from omniqa.jobs.rows import FAILED
from omniqa.media.cut_names import file_stem
from omniqa.pipeline.subtitles import Cue, write_cues

SUFFIXES = (".srt", ".vtt")


def check_subtitles(file: Path | None) -> None:
    """Raises UsageError for a file that subtitles can't be written to; None is none."""
    if file is None:
        return
    if file.suffix not in SUFFIXES:
        raise UsageError(f"subtitles writes FILE.srt or FILE.vtt, not {file.name}.", field="subtitles")
    if not file.parent.is_dir():
        raise UsageError(f"subtitles: there is no folder {file.parent}.", field="subtitles")


def cue_of(row: Row) -> Cue | None:
    """The cue of a line of a batch, be it of JSON or of a table; None if it has no answer or no evidence.

    Raises:
        ValueError: its spans are of no use.
    """
    if row.get("status") == FAILED:
        return None
    spans = row.get("evidence_spans") or []
    if isinstance(spans, str):
        spans = json.loads(spans)
    try:
        return Cue(float(spans[0]["start_s"]), float(spans[0]["end_s"]), str(row["answer"])) if spans else None
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("its evidence_spans are no spans") from error


def subtitle_paths(file: Path, clips: Sequence[ClipPath]) -> dict[str, Path]:
    """A file for each clip, by the clip's name: `file` for one alone, else FILE-CLIP.srt with a digest of its path."""
    names = {clip.name: clip.path for clip in clips}
    if len(names) == 1:
        return dict.fromkeys(names, file)
    return {name: file.with_stem(f"{file.stem}-{file_stem(path)}") for name, path in names.items()}


def write_subtitles(file: Path, clips: Sequence[ClipPath], rows: Iterable[Row]) -> list[Path]:
    """Write a subtitle file for each clip that has a cue.

    Args:
        file: FILE.srt or FILE.vtt.
        clips: those that were asked about.
        rows: all lines about them; of several with one id, the last counts.

    Returns:
        The files written.

    Raises:
        UsageError: one can't be written, or a row is of no use.
    """
    paths = subtitle_paths(file, clips)
    cues: dict[str, dict[str, Cue]] = {}
    for row in rows:
        try:
            cue = cue_of(row)
        except ValueError as error:
            raise UsageError(f"No subtitles can be made of line {row.get('id')!r}: {error}.") from error
        if cue is not None and row["video"] in paths:
            cues.setdefault(row["video"], {})[row["id"]] = cue
    for name, found in cues.items():
        write_whole(paths[name], write_cues(found.values(), file.suffix))
    return [paths[name] for name in cues]
