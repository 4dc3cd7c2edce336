"""The options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

from omniqa.cli import console

Model = Annotated[
    str | None,
    typer.Option(
        help="Hub id, folder, or nano. Default: Qwen/Qwen2.5-Omni-7B on a GPU that fits it, else Qwen/Qwen2.5-Omni-3B.",
        envvar="OMNIQA_MODEL",
        rich_help_panel="Model",
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N.", envvar="OMNIQA_DEVICE", rich_help_panel="Model")
]
Dtype = Annotated[
    str,
    typer.Option(help="auto (as stored), bfloat16 or float32.", envvar="OMNIQA_DTYPE", rich_help_panel="Model"),
]
Attn = Annotated[
    str, typer.Option(help="Attention: auto, flash or sdpa.", envvar="OMNIQA_ATTN", rich_help_panel="Model")
]

Method = Annotated[
    str, typer.Option(help="How tokens are dropped.", envvar="OMNIQA_METHOD", rich_help_panel="Token dropping")
]
RetentionTarget = Annotated[
    float,
    typer.Option(
        help="Share of audio and video tokens to keep, averaged over the decoder's layers; 1 keeps all.",
        envvar="OMNIQA_RETENTION",
        rich_help_panel="Token dropping",
    ),
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="An option of the method, as key=value; repeats.",
        envvar="OMNIQA_SET",
        rich_help_panel="Token dropping",
    ),
]

Fps = Annotated[
    float, typer.Option(help="Frames taken a second.", envvar="OMNIQA_FPS", rich_help_panel="What is taken")
]
MaxFrames = Annotated[
    int,
    typer.Option(
        help="At most so many frames; a longer clip is sampled more sparsely.",
        envvar="OMNIQA_MAX_FRAMES",
        rich_help_panel="What is taken",
    ),
]
Start = Annotated[
    float, typer.Option(help="Second to start at.", envvar="OMNIQA_START", rich_help_panel="What is taken")
]
End = Annotated[
    float | None, typer.Option(help="Second to end at.", envvar="OMNIQA_END", rich_help_panel="What is taken")
]
MinPixels = Annotated[
    int | None,
    typer.Option(
        help="Enlarge frames to at least so many pixels. Default: the model's, 100352.",
        envvar="OMNIQA_MIN_PIXELS",
        rich_help_panel="What is taken",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        help="Shrink frames to at most so many pixels. Default: the model's, 602112.",
        envvar="OMNIQA_MAX_PIXELS",
        rich_help_panel="What is taken",
    ),
]
NoAudio = Annotated[
    bool, typer.Option("--no-audio", help="Don't listen.", envvar="OMNIQA_NO_AUDIO", rich_help_panel="What is taken")
]
NoVideo = Annotated[
    bool, typer.Option("--no-video", help="Don't look.", envvar="OMNIQA_NO_VIDEO", rich_help_panel="What is taken")
]
AudioTrack = Annotated[
    int | None,
    typer.Option(
        help="Listen to the N-th audio track, counted from 1. Default: the one that a player would take.",
        metavar="N",
        envvar="OMNIQA_AUDIO_TRACK",
        rich_help_panel="What is taken",
    ),
]
AllowNetwork = Annotated[
    bool,
    typer.Option(
        "--allow-network",
        help="Open addresses (https://…) and network playlists, too.",
        envvar="OMNIQA_ALLOW_NETWORK",
        rich_help_panel="What is taken",
    ),
]

Cache = Annotated[
    Path | None,
    typer.Option(
        help="Keep encoded clips in this folder: the same file, asked about again, is neither decoded nor encoded.",
        metavar="DIR",
        envvar="OMNIQA_CACHE",
        rich_help_panel="Encoding",
    ),
]
CacheSize = Annotated[
    float,
    typer.Option(
        help="Gigabytes that the cache may take; the least recently used clips give way.",
        min=0,
        envvar="OMNIQA_CACHE_SIZE",
        rich_help_panel="Encoding",
    ),
]
ReuseStatic = Annotated[
    float | None,
    typer.Option(
        help="Take parts of the picture that change by at most so much, in levels of 255, from the frames before; "
        "faster, and no longer exact. Default: off.",
        metavar="LEVELS",
        min=0,
        max=255,
        envvar="OMNIQA_REUSE_STATIC",
        rich_help_panel="Encoding",
    ),
]

MaxNewTokens = Annotated[
    int,
    typer.Option(help="Longest answer, in tokens.", envvar="OMNIQA_MAX_NEW_TOKENS", rich_help_panel="The answer"),
]
Temperature = Annotated[
    float,
    typer.Option(
        help="0 takes the likeliest token each time; above 0 draws.",
        envvar="OMNIQA_TEMPERATURE",
        rich_help_panel="The answer",
    ),
]
TopP = Annotated[
    float,
    typer.Option(
        help="Draw only from the likeliest tokens that together reach this probability.",
        envvar="OMNIQA_TOP_P",
        rich_help_panel="The answer",
    ),
]
Seed = Annotated[int, typer.Option(help="Makes draws repeatable.", envvar="OMNIQA_SEED", rich_help_panel="The answer")]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", envvar="OMNIQA_JSON")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Nothing on stderr but errors.", envvar="OMNIQA_QUIET", callback=console.hush),
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
