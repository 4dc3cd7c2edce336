"""Errors as the command line says them: its flags in place of the library's names."""

from omniqa.errors import OmniqaError

# Where a flag is not called as the library calls the field.
_FLAGS = {
    "actors": "--num-actors", "assignments": "--set", "cpus": "--cpus-per-actor", "folder": "--media",
    "gpus": "--gpus-per-actor", "layout": "--format", "new_tokens": "--max-new-tokens",
}  # fmt: skip


def flag(field: str, value: str | None = None) -> str:
    """A field as a flag, with the value that it is to get: flag("audio", "False") is "--no-audio"."""
    name = _FLAGS.get(field, f"--{field.replace('_', '-')}")
    if value in (None, "True"):
        return name
    return f"--no-{name.removeprefix('--')}" if value == "False" else f"{name} {value.strip(chr(34))}"


def describe(error: OmniqaError) -> str:
    """What is wrong and what to do, in one line."""
    return error.spelled(flag)
