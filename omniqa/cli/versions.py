"""Which versions omniqa was tested with. pyproject.toml has the lowest; this table has the newest."""

import importlib.metadata
import platform
import re

# The newest version that all tests were run with, as far as it matters: a later one is most likely fine, and untested.
NEWEST_TESTED = {
    "python": "3.13",
    "torch": "2.14",
    "transformers": "5.24",
    "huggingface-hub": "2.4",
    "safetensors": "0.8",
    "filelock": "4",
    "platformdirs": "4",
    "av": "19",
    "librosa": "1.0",
    "soxr": "1.1",
    "numpy": "2.5",
    "psutil": "7",
    "typer": "0.29",
    "rich": "15",
    "prompt-toolkit": "3.0",
    "jinja2": "3.1",
}
PACKAGES = tuple(name for name in NEWEST_TESTED if name != "python")
MODULES = {name.replace("-", "_"): name for name in PACKAGES}  # the package of each module


def installed(package: str) -> str | None:
    """The version of a package, or of Python; None if it is not installed."""
    if package == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def untested(package: str, version: str) -> str:
    """What is to be said about a version that no test was run with; empty if one was."""
    lowest, newest = lowest_tested(package), NEWEST_TESTED[package]
    if lowest is not None and _numbers(version) < _numbers(lowest):
        return f"too old: omniqa needs {lowest} or later"
    if _numbers(version)[: len(_numbers(newest))] > _numbers(newest):
        return f"not tested: the newest that was is {newest}"
    return ""


def lowest_tested(package: str) -> str | None:
    """The lowest version that omniqa's own metadata allows; None if it says nothing."""
    try:
        about = importlib.metadata.metadata("omniqa")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return None
    if package == "python":
        bounds = about["Requires-Python"] or ""
    else:
        needs = (line.partition(";")[0] for line in about.get_all("Requires-Dist") or [] if "extra ==" not in line)
        bounds = next((line for line in needs if re.match(rf"{re.escape(package)}\b(?![-.])", line)), "")
    lowest = re.search(r">=\s*([0-9.]+)", bounds)
    return lowest[1] if lowest else None


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, without what follows it: (2, 13, 0) of 2.13.0+cpu."""
    release = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
