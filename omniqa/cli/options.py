"""The options that several commands share, each declared once: alone, or in a group that commands take whole."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from omniqa.cache.folder import GIGABYTES
from omniqa.cli import values
from omniqa.cli.console import console
from omniqa.media.access import MAX_DOWNLOAD
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import STANDARD
from omniqa.models.families import HUB_3B, HUB_7B, check_name
from omniqa.pruning import registry
from omniqa.pruning.contract import AnyMethod
from omniqa.pruning.variants import MethodVariant, method_variants
from omniqa.runtime.device import check_attention, check_device, check_dtype, check_offload, check_quantize
from omniqa.runtime.generation_options import GenerationOptions

_MODEL, _DROPPING, _TAKEN, _ENCODING = "Model", "Pruning", "Media", "Cache"
ANSWER = "The answer"
LOW_RETENTION, FEW_FRAMES = 0.1, 8  # at and below these, taking less is no advice any more
METHODS = ", ".join(registry.names())

Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        autocompletion=values.complete_model,
        help=f"Hub id, folder, or nano. Default: {HUB_7B} on a GPU that fits it, else {HUB_3B}.",
        envvar="OMNIQA_MODEL",
        rich_help_panel=_MODEL,
    ),
]
Cut = Annotated[
    Path | None,
    typer.Option(
        "--cut",
        help="Cut the spans of each answer's evidence out of the file, into DIR.",
        metavar="DIR",
        envvar="OMNIQA_CUT",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", envvar="OMNIQA_JSON")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Nothing on stderr but errors.", envvar="OMNIQA_QUIET", callback=console.hush),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Seconds by stage, tokens and memory after each answer.", envvar="OMNIQA_VERBOSE"
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Show tracebacks.",
        envvar="OMNIQA_DEBUG",
        callback=console.show_tracebacks,
        rich_help_panel="Debugging",
    ),
]


Quantize = Annotated[
    str | None,
    typer.Option(
        help="Weights in 8 or 4 bits: smaller, and no longer exact. int8 on a CPU is faster, too. Default: off.",
        metavar="int8|fp8|nf4",
        autocompletion=values.complete_quantize,
        envvar="OMNIQA_QUANTIZE",
        rich_help_panel=_MODEL,
    ),
]
WeightsFolder = Annotated[
    Path | None,
    typer.Option(
        "--weights-cache",
        help="Where quantised weights are kept. Default: a folder of omniqa's own, where this system has caches.",
        metavar="DIR",
        autocompletion=values.complete_folder,
        envvar="OMNIQA_WEIGHTS_CACHE",
        rich_help_panel=_MODEL,
    ),
]


@dataclass(frozen=True)
class ModelFlags:
    """Which model answers, and where it runs."""

    model: Model = None
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, cuda:N, or several GPUs as cuda:0,cuda:1.",
            metavar="DEVICE",
            autocompletion=values.complete_device,
            envvar="OMNIQA_DEVICE",
            rich_help_panel=_MODEL,
        ),
    ] = "auto"
    dtype: Annotated[
        str,
        typer.Option(
            help="auto (as stored), bfloat16 or float32.",
            metavar="auto|bfloat16|float32",
            autocompletion=values.complete_dtype,
            envvar="OMNIQA_DTYPE",
            rich_help_panel=_MODEL,
        ),
    ] = "auto"
    attn: Annotated[
        str,
        typer.Option(
            help="Attention: auto, flash or sdpa.",
            metavar="auto|flash|sdpa",
            autocompletion=values.complete_attention,
            envvar="OMNIQA_ATTN",
            rich_help_panel=_MODEL,
        ),
    ] = "auto"
    quantize: Quantize = None
    weights_cache: WeightsFolder = None
    offload: Annotated[
        str | None,
        typer.Option(
            help="encoders: keep them in the machine's memory, and on the GPU only while a clip is encoded.",
            metavar="encoders",
            envvar="OMNIQA_OFFLOAD",
            rich_help_panel=_MODEL,
        ),
    ] = None

    @property
    def settings(self) -> dict[str, str]:
        """What of this changes answers beside model and dtype, as settings of results."""
        return {} if self.quantize is None else {"quantize": self.quantize}

    def __post_init__(self) -> None:
        """Refuse what no machine has, before anything is imported that takes long."""
        check_device(self.device)
        check_dtype(self.dtype)
        check_attention(self.attn)
        check_quantize(self.quantize)
        check_offload(self.offload, self.device)
        if self.model is not None:
            check_name(self.model)


@dataclass(frozen=True)
class CacheFlags:
    """What the encoders need not do again."""

    cache: Annotated[
        Path | None,
        typer.Option(
            help="Keep encoded clips in this folder: the same file, asked about again, is neither decoded nor encoded.",
            metavar="DIR",
            autocompletion=values.complete_folder,
            envvar="OMNIQA_CACHE",
            rich_help_panel=_ENCODING,
        ),
    ] = None
    cache_size: Annotated[
        float,
        typer.Option(
            help="Gigabytes that the cache may take; the least recently used clips give way.",
            parser=values.gigabytes,
            metavar="NUMBER",
            envvar="OMNIQA_CACHE_SIZE",
            rich_help_panel=_ENCODING,
        ),
    ] = GIGABYTES
    reuse_static: Annotated[
        float | None,
        typer.Option(
            help="Don't compute video tokens whose pixels change by at most so much, in levels of 255: an earlier "
            "frame's stand for them. Faster, and no longer exact. Default: off.",
            metavar="LEVELS",
            min=0,
            max=255,
            envvar="OMNIQA_REUSE_STATIC",
            rich_help_panel=_ENCODING,
        ),
    ] = None

    @property
    def settings(self) -> dict[str, float]:
        """What of this changes answers, as settings of results."""
        return {} if self.reuse_static is None else {"reuse_static": self.reuse_static}


def _method(help: str) -> Any:
    return typer.Option(
        "--method",
        help=help,
        metavar="METHOD",
        autocompletion=values.complete_method,
        envvar="OMNIQA_METHOD",
        rich_help_panel=_DROPPING,
    )


def _retention(help: str) -> Any:
    return typer.Option(
        "--retention",
        help=help,
        parser=values.share,
        metavar="SHARE",
        envvar="OMNIQA_RETENTION",
        rich_help_panel=_DROPPING,
    )


def _settings(help: str) -> Any:
    return typer.Option(
        "--set",
        help=help,
        metavar="KEY=VALUE",
        autocompletion=values.complete_setting,
        envvar="OMNIQA_SET",
        rich_help_panel=_DROPPING,
    )


@dataclass(frozen=True)
class ComparisonFlags:
    """Several methods, each at several retentions; the command says what it takes if none are given."""

    methods: Annotated[
        list[str] | None,
        _method("A method to compare, as omnidrop or omnidrop:tds=false; repeats."),
    ] = None
    retentions: Annotated[
        list[float] | None,
        _retention("Each method is asked at each; repeats."),
    ] = None
    method_options: Annotated[
        list[str] | None,
        _settings("An option of all methods that have it, as key=value, or of one, as METHOD.key=value; repeats."),
    ] = None


@dataclass(frozen=True)
class PruningFlags:
    """One method, and how much it keeps."""

    method: Annotated[
        str,
        _method(
            f"How tokens are dropped: {METHODS}; also with options, as omnidrop:tds=false. FILE.py:Class is "
            "a method of your own."
        ),
    ] = "omnidrop"
    retention: Annotated[
        float,
        _retention(
            "Share of audio and video tokens to keep, as 0.3 or 30%, averaged over the decoder's layers; 1 keeps all."
        ),
    ] = 0.3
    method_options: Annotated[
        list[str] | None,
        _settings("An option of the method, as key=value; repeats. `omniqa methods NAME` lists them."),
    ] = None

    def less(self) -> list[str]:
        """Advice, as of an error, that would keep fewer tokens than these."""
        if self.method.partition(":")[0] == "none":
            return ['{method="omnidrop"}']
        return ["a lower {retention}"] if self.retention > LOW_RETENTION else []

    def pruner(self) -> AnyMethod:
        """The method with its options; raises UsageError where there is none like that."""
        return self.column().pruner

    def column(self) -> MethodVariant:
        """The same with its name, as a table has it."""
        return method_variants([self.method], [self.retention], self.method_options or [])[0]

    def other(self, method: str) -> MethodVariant:
        """Another method at the same retention, which may have options as omnidrop:tds=false."""
        return method_variants([method], [self.retention])[0]


@dataclass(frozen=True)
class ClipFlags:
    """What is taken from whole files."""

    fps: Annotated[float, typer.Option(help="Frames taken a second.", envvar="OMNIQA_FPS", rich_help_panel=_TAKEN)] = (
        2.0
    )
    max_frames: Annotated[
        int,
        typer.Option(
            help="At most so many frames; a longer clip is sampled more sparsely.",
            envvar="OMNIQA_MAX_FRAMES",
            rich_help_panel=_TAKEN,
        ),
    ] = 128
    min_pixels: Annotated[
        int | None,
        typer.Option(
            help="Enlarge frames to at least so many pixels. Default: the model's, 100352.",
            envvar="OMNIQA_MIN_PIXELS",
            rich_help_panel=_TAKEN,
        ),
    ] = None
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Shrink frames to at most so many pixels. Default: the model's, 602112.",
            envvar="OMNIQA_MAX_PIXELS",
            rich_help_panel=_TAKEN,
        ),
    ] = None
    no_audio: Annotated[
        bool, typer.Option("--no-audio", help="Don't listen.", envvar="OMNIQA_NO_AUDIO", rich_help_panel=_TAKEN)
    ] = False
    no_video: Annotated[
        bool, typer.Option("--no-video", help="Don't look.", envvar="OMNIQA_NO_VIDEO", rich_help_panel=_TAKEN)
    ] = False
    audio_track: Annotated[
        int | None,
        typer.Option(
            help="Listen to the N-th audio track, counted from 1. Default: the one that a player would take.",
            metavar="N",
            envvar="OMNIQA_AUDIO_TRACK",
            rich_help_panel=_TAKEN,
        ),
    ] = None
    allow_network: Annotated[
        bool,
        typer.Option(
            "--allow-network",
            help="Open addresses (https://…) and network playlists, too.",
            envvar="OMNIQA_ALLOW_NETWORK",
            rich_help_panel=_TAKEN,
        ),
    ] = False
    max_download: Annotated[
        float,
        typer.Option(
            help="Gigabytes of an address that may be copied to a temporary file, if its server can't be sought in.",
            parser=values.gigabytes,
            metavar="NUMBER",
            envvar="OMNIQA_MAX_DOWNLOAD",
            rich_help_panel=_TAKEN,
        ),
    ] = MAX_DOWNLOAD / 1e9

    def less(self) -> list[str]:
        """Advice, as of an error, that would take less of a clip than these."""
        frames = ["a lower {max_frames}"] if self.max_frames > FEW_FRAMES else []
        return [
            *frames,
            *(["a lower {max_pixels}"] if (self.max_pixels or STANDARD.max_pixels) > STANDARD.min_pixels else []),
        ]

    def sampling(self) -> ClipOptions:
        """The same for the engine; raises UsageError for what makes no sense."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given["max_download"] = round(1e9 * self.max_download)
        return ClipOptions(audio=not given.pop("no_audio"), video=not given.pop("no_video"), **given)


@dataclass(frozen=True)
class ClipRangeFlags(ClipFlags):
    """What is taken from a part of each file."""

    start: Annotated[
        float,
        typer.Option(
            help="Where to start, as 90, 1:30, 1:02:03.5 or 2m.",
            parser=values.seconds,
            metavar="TIME",
            envvar="OMNIQA_START",
            rich_help_panel=_TAKEN,
        ),
    ] = 0.0
    end: Annotated[
        float | None,
        typer.Option(
            help="Where to end, likewise.",
            parser=values.seconds,
            metavar="TIME",
            envvar="OMNIQA_END",
            rich_help_panel=_TAKEN,
        ),
    ] = None


@dataclass(frozen=True)
class GenerationFlags:
    """How the answer is written."""

    max_new_tokens: Annotated[
        int, typer.Option(help="Longest answer, in tokens.", envvar="OMNIQA_MAX_NEW_TOKENS", rich_help_panel=ANSWER)
    ] = 128
    temperature: Annotated[
        float,
        typer.Option(
            help="0 takes the likeliest token each time; above 0 draws.",
            envvar="OMNIQA_TEMPERATURE",
            rich_help_panel=ANSWER,
        ),
    ] = 0.0
    top_p: Annotated[
        float,
        typer.Option(
            help="Draw only from the likeliest tokens that together reach this probability.",
            envvar="OMNIQA_TOP_P",
            rich_help_panel=ANSWER,
        ),
    ] = 1.0
    seed: Annotated[int, typer.Option(help="Makes draws repeatable.", envvar="OMNIQA_SEED", rich_help_panel=ANSWER)] = 0

    def decoding(self) -> GenerationOptions:
        """The same for the engine; raises UsageError for what makes no sense."""
        return GenerationOptions(self.max_new_tokens, self.temperature, self.top_p, self.seed)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer, which sees, in place of each parameter that is a group, the options of the group."""
    flat: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    signature = inspect.signature(command)
    for name, parameter in signature.parameters.items():
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            flat += inspect.signature(parameter.annotation).parameters.values()
        else:
            flat.append(parameter)

    @wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**made, **given)

    # Typer gives all by name, so that their order binds nobody to give defaults.
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in flat]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
