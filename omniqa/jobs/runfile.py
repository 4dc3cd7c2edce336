"""What the lines of a result file have in common, kept beside it: settings, shard, what was to be done, what is."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omniqa import __version__, json_output, strict_json
from omniqa.errors import UsageError
from omniqa.files import read_regular
from omniqa.jobs.clips import Shard, named_as_media
from omniqa.jobs.jsonl_store import differences, write_whole
from omniqa.jobs.rows import ClipQuestions
from omniqa.media.sampling import ClipOptions
from omniqa.pruning.contract import AnyMethod
from omniqa.pruning.user_file import fingerprint
from omniqa.runtime.generation_options import GenerationOptions

Settings = dict[str, Any]
_SAMPLE_BYTES = 1 << 16  # of each file of weights, that tell it from others


@dataclass(frozen=True)
class RunFile:
    """The content of FILE.run.json, beside the results in FILE.

    Attributes:
        shard: as "3/16".
        asked: what the whole job asks, all shards together: the number of questions, and a digest.
        settings: by the name that lines call them by; several where lines were added to others'.
        finished: how many lines there are with these settings, where all that was asked for has one.
    """

    shard: str = str(Shard())
    asked: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Settings] = field(default_factory=dict)
    finished: Mapping[str, int] = field(default_factory=dict)
    version: str = __version__

    def write(self, results: Path) -> None:
        """Keep it beside the results.

        Raises:
            UsageError: that can't be written.
        """
        write_whole(path_of(results), json_output.dumps(asdict(self), indent=1) + "\n")

    def claimed(self, results: Path, settings: Settings, append: bool) -> "RunFile":
        """With these settings, too.

        Raises:
            UsageError: they are other ones than before, without `append`.
        """
        name = name_of(settings)
        if name not in self.settings and self.settings and not append:
            *_, last = self.settings.values()
            differ = differences(last, settings)
            raise UsageError(
                f"{results} holds results with other settings: {differ}.",
                advice="Write to another file, or add them to it with {append=True}.",
            )
        finished = {other: count for other, count in self.finished.items() if other != name}
        return replace(self, settings={**self.settings, name: settings}, finished=finished, version=__version__)


def path_of(results: Path) -> Path:
    """Where the run file of these results is."""
    return results.with_name(f"{results.name}.run.json")


def read(results: Path) -> RunFile | None:
    """The run file beside the results; None where there is none.

    Raises:
        UsageError: it is broken.
    """
    path = path_of(results)
    try:
        text = read_regular(path).decode("utf-8")
        return _checked(text, strict_json.parse(text, any_text=True))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read ({error}).") from error


def _checked(text: str, content: Any) -> RunFile:
    """The run file that a parsed text is. Raises ValueError, which names the line, for anything else."""
    if not isinstance(content, dict):
        raise ValueError("line 1: it is no object with named entries")
    for name, (fits, kind) in _ENTRIES.items():
        if name not in content:
            raise ValueError(f"line 1: {name!r} is missing")
        if not fits(content[name]):
            raise ValueError(f"line {strict_json.line_of(text, name)}: {name!r} must be {kind}")
    unknown = next((name for name in content if name not in _ENTRIES), None)
    if unknown is not None:
        raise ValueError(f"line {strict_json.line_of(text, unknown)}: there is no entry {unknown!r}")
    return RunFile(**content)


def _is_shard(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(Shard.parse(value))
    except UsageError:
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_asked(value: Any) -> bool:
    """A job's summary, or nothing at all."""
    whole = isinstance(value, dict) and _is_count(value.get("questions")) and isinstance(value.get("digest"), str)
    return whole or value == {}


# What each entry must be, and how messages say so.
_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "shard": (_is_shard, 'a text as "3/16"'),
    "asked": (_is_asked, "an object with the number of questions and a digest"),
    "settings": (lambda value: isinstance(value, dict) and all(isinstance(one, dict) for one in value.values()),
                 "an object of settings by their names"),
    "finished": (lambda value: isinstance(value, dict) and all(map(_is_count, value.values())),
                 "an object of whole numbers"),
    "version": (lambda value: isinstance(value, str), "a text"),
}  # fmt: skip


def make_settings(
    model: str | None, dtype: str, clips: ClipOptions, decoding: GenerationOptions, own: Mapping[str, Any]
) -> Settings:
    """All that lines depend on, flat, as JSON gives it back. Devices may differ.

    Args:
        own: what else lines of this kind depend on, such as the method.
    """
    weights = {"model": model, "weights": weights_fingerprint(model), "dtype": dtype}
    settings: Settings = json.loads(json_output.dumps({**weights, **own, **clips.settings, **asdict(decoding)}))
    return settings


def method_settings(pruner: AnyMethod) -> Settings:
    """A method, its retention and its options, as settings."""
    options = {f"set {name}": value for name, value in asdict(pruner).items() if name != "retention"}
    file = {"method_file": digest} if (digest := fingerprint(pruner)) else {}
    return {"method": pruner.name, **file, "retention": pruner.target, **options}


def name_of(settings: Settings) -> str:
    """A short name for settings, the same for the same ones."""
    return hashlib.sha256(json_output.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def summary(tasks: Iterable[ClipQuestions], columns: Sequence[str] = ("",)) -> dict[str, Any]:
    """What a job asks, in short, whatever its order. Files that only may be media are left out: some come and go.

    Args:
        columns: the names of its methods; an empty one in a job that has but one.
    """
    questions = [id for task in tasks if named_as_media(task.clip) for id, _ in task.asked()]
    ids = sorted(f"{id}\t{column}" if column else id for id in questions for column in columns)
    return {"questions": len(ids), "digest": hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]}


def weights_fingerprint(model: str | None) -> str | None:
    """What tells a folder's weights from others of the same shape; None for a model of the hub."""
    files = sorted(Path(model).expanduser().glob("*.safetensors")) if model else []
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(f"{path.name} {size}".encode() + file.read())
    return digest.hexdigest()[:16]
