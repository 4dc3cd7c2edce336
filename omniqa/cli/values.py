"""Values as people write them on the command line: times, shares, and what a shell can complete. Free of torch."""

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

import typer

from omniqa.pruning import registry
from omniqa.runtime.device import ATTENTIONS, DTYPES, QUANTIZATIONS

_MOST_GIGABYTES = 1e9  # bytes of it still fit into 64 bits
_UNITS = {"h": 3600, "m": 60, "min": 60, "s": 1, "": 1}
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):([0-5]?\d(?:\.\d+)?)")
_PIECE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(h|min|m|s|)")


def seconds(text: str | float) -> float:
    """A time in seconds, from 90, 90.5, 1:30, 1:02:03.5, 45s, 2m or 1h2m3s.

    Raises:
        typer.BadParameter: it is none of these.
    """
    given = str(text).strip().lower()
    if clock := _CLOCK.fullmatch(given):
        hours, minutes, rest = clock.groups()
        if hours is None or int(minutes) < 60:
            return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest)
    sign, number = (-1, given[1:]) if given.startswith("-") else (1, given)  # a time below 0 has an error of its own
    pieces = _PIECE.findall(number)
    units = [unit for _, unit in pieces]
    whole = number and not _PIECE.sub("", number).strip()
    if whole and ("" not in units or len(units) == 1):
        return sign * sum(float(amount) * _UNITS[unit] for amount, unit in pieces)
    raise typer.BadParameter(f"{text!r} is no time. Write it as 90, 1:30, 1:02:03.5, 45s or 2m.")


def share(text: str | float) -> float:
    """A share of 1, from 0.3 or 30%.

    Raises:
        typer.BadParameter: it is no number.
    """
    given = str(text).strip()
    percent = given.endswith("%")
    try:
        value = float(given.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text!r} is no share. Write it as 0.3 or 30%.")
    return value / 100 if percent else value


def gigabytes(text: str | float) -> float:
    """Gigabytes, from 20 or 0.5.

    Raises:
        typer.BadParameter: it is no number, below 0, or more than any disk has.
    """
    try:
        value = float(str(text).strip())
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MOST_GIGABYTES:
        raise typer.BadParameter(f"{text!r} is no number of gigabytes. Write it as 20 or 0.5.")
    return value


def complete_method(incomplete: str) -> Iterable[tuple[str, str]]:
    """Methods by name; after a colon, the options of one."""
    name, colon, written = incomplete.partition(":")
    if not colon:
        return [(known, method.summary) for known, method in registry.methods().items() if known.startswith(incomplete)]
    if name not in registry.methods():
        return []
    before, comma, last = written.rpartition(",")
    return [
        (f"{name}:{before}{comma}{option.name}=", option.help)
        for option in registry.options(name)
        if option.name.startswith(last)
    ]


def complete_setting(context: typer.Context, incomplete: str) -> Iterable[tuple[str, str]]:
    """Options of the method that was named before, as key=."""
    given = context.params.get("method") or "omnidrop"
    name = str(given).partition(":")[0]
    if name not in registry.methods():
        return []
    return [
        (f"{option.name}=", option.help)
        for option in registry.options(name)
        if f"{option.name}=".startswith(incomplete)
    ]


def complete_device(incomplete: str) -> list[str]:
    """Names of devices; whether there are any is known later."""
    return [name for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1") if name.startswith(incomplete)]


def complete_dtype(incomplete: str) -> list[str]:
    """Precisions by name."""
    return [name for name in DTYPES if name.startswith(incomplete)]


def complete_quantize(incomplete: str) -> list[str]:
    """Forms of quantised weights by name."""
    return [name for name in QUANTIZATIONS if name.startswith(incomplete)]


def complete_attention(incomplete: str) -> list[str]:
    """Attention backends by name."""
    return [name for name in ATTENTIONS if name.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """nano, the default models, models in the hub's local cache, and folders."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from omniqa.models.families import HUB_3B, HUB_7B, NANO

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*--*")) if Path(HF_HUB_CACHE).is_dir() else []
    cached = [
        "/".join(folder.name.split("--", 2)[1:]) for folder in folders if any(folder.glob("snapshots/*/config.json"))
    ]
    names = dict.fromkeys([NANO, *cached, HUB_7B, HUB_3B])
    return [name for name in names if name.startswith(incomplete)] + complete_folder(incomplete)


def complete_file(incomplete: str) -> list[str]:
    """Files and folders that begin so; a folder ends in a slash."""
    folder, name = os.path.split(incomplete)
    try:
        found = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
    except OSError:  # no such folder: there is nothing to complete
        return []
    return [
        os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "")
        for entry in found
        if entry.name.startswith(name) and (name or not entry.name.startswith(".")) and entry.name.isprintable()
    ]


def complete_folder(incomplete: str) -> list[str]:
    """Folders that begin so."""
    return [name for name in complete_file(incomplete) if name.endswith("/")]
