"""Loading the model that a command was given."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from omniqa import terminal
from omniqa.cli import options
from omniqa.cli.console import console
from omniqa.cli.flags import describe
from omniqa.cli.progress import download_bar, spinner
from omniqa.errors import OutOfMemoryError, UsageError
from omniqa.media.access import is_address
from omniqa.media.download import held
from omniqa.media.pipe import is_pipe, read_pipe, spool_to_tempfile
from omniqa.media.sampling import ClipOptions, selected_range
from omniqa.memory import memory_errors
from omniqa.models.families import NANO
from omniqa.pipeline.fit import Choice, ModelRequest, advice, choose
from omniqa.runtime import machine

if TYPE_CHECKING:
    from omniqa.media.source import Source
    from omniqa.pipeline.engine import OmniQA


def refuse_more_words(context: typer.Context) -> None:
    """Refuse what follows the question: words of it, if it is not in quotes.

    Raises:
        UsageError: there are any.
    """
    if context.args:
        raise UsageError(f"Put the question in quotes: the shell splits it, and {context.args[0]!r} is left over.")


def check_clip(path: str | Path, sampling: ClipOptions) -> "Source":
    """The clip, probed; what can't be used is refused before a model is loaded for it. Free of torch.

    Raises:
        UsageError: it is a folder.
        MediaError: the file can't be used, or holds nothing in the range.
    """
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder. Use `omniqa batch` to ask about all files in it.")
    with spinner(f"opening {path}"):
        from omniqa.media.source import open_source

        source = open_source(path, sampling.access)
    selected_range(source.info, sampling)
    return source


@contextmanager
def fetched(video: str, sampling: ClipOptions) -> Iterator[None]:
    """Keep an address usable while the block runs; if it has to be copied, a bar shows how far that is.

    Raises:
        MediaError: it can't be copied.
    """
    with ExitStack() as stack:
        with download_bar(video) as show:
            stack.enter_context(held(video, sampling.access, show))
        yield


@contextmanager
def video_file(video: str, sampling: ClipOptions) -> Iterator[str | Path]:
    """The video's path, or address; what comes through a pipe is kept in a temporary file, for media is sought in."""
    if video == "-":
        with spool_to_tempfile(terminal.stdin_pieces(), "stdin") as path:
            yield path
    elif is_pipe(video):
        with spool_to_tempfile(read_pipe(video), video) as path:
            yield path
    else:
        with fetched(video, sampling):
            yield video if is_address(video) and not os.path.exists(video) else Path(video)


@contextmanager
def fitting(loading: options.ModelFlags, smaller_clip: Sequence[str] = ()) -> Iterator[Choice]:
    """A block that loads and runs the model: what can't fit is refused before it, and memory errors get their advice.

    Args:
        loading: the model that is asked for.
        smaller_clip: advice that would make the clip smaller than it is, in the words of an error's advice.

    Yields:
        The model and the device that will be used.

    Raises:
        OutOfMemoryError: not even the weights fit; or memory runs out inside.
    """
    with spinner("starting"):
        here = machine.read_machine(loading.device)
        request = ModelRequest(loading.model, loading.device, loading.dtype, loading.quantize)
        choice = choose(here, request)
    if choice.warning:
        console.note(f"warning: {describe(choice.warning)}")
    try:
        with memory_errors():
            yield choice
    except OutOfMemoryError as error:
        if error.advice:
            raise
        ways = advice(here, choice, request, smaller_clip)
        raise OutOfMemoryError(error.message, advice=ways) from error


def load_model(loading: options.ModelFlags, encoding: options.CacheFlags) -> "OmniQA":
    """The model; what it is, is said first, and its licence once it has been downloaded."""
    say_what_it_knows(loading.model)
    steps: list[str] = []

    with spinner("starting") as step:

        def on_step(name: str) -> None:
            steps.append(name)
            step(name)

        qa = load_silently(loading, encoding, on_step)
    for note in qa.notes:
        console.note(f"warning: {note}")
    _say_licence_of_downloaded(qa.name, steps)
    return qa


def _say_licence_of_downloaded(model: str, steps: Sequence[str]) -> None:
    from omniqa.models.families import DOWNLOADING
    from omniqa.models.licence import licence

    if any(step.startswith(DOWNLOADING) for step in steps):
        console.note(f"{model} was downloaded; its licence: {licence(model)}")


def load_silently(
    loading: options.ModelFlags, encoding: options.CacheFlags, on_step: Callable[[str], None] = lambda step: None
) -> "OmniQA":
    """The model; other processes may call this, too. Importing what it needs counts with its first answer."""
    begun = time.perf_counter()
    from omniqa.pipeline.load import load

    imported = time.perf_counter() - begun
    qa = load(
        loading.model,
        loading.device,
        loading.dtype,
        loading.attn,
        cache=encoding.cache,
        cache_bytes=round(encoding.cache_size * 10**9),
        reuse_static=encoding.reuse_static,
        quantize=loading.quantize,
        weights_cache=loading.weights_cache,
        offload=loading.offload,
        on_step=on_step,
    )
    qa.count_import(imported)
    return qa


def say_what_it_knows(model: str | None) -> None:
    """Say on stderr what nano is, for its answers mean nothing elsewhere."""
    if model == NANO:
        console.note("nano is a tiny model that knows its own world of shapes and sounds, and nothing else")
