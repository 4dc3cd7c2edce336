"""`omniqa serve`: an OpenAI-compatible server of one model, with a page."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omniqa.cli import options, values
from omniqa.cli.console import console
from omniqa.cli.loading import fitting, load_model
from omniqa.errors import ModelError
from omniqa.serve.settings import Limits, ServeSettings

if TYPE_CHECKING:
    import socket

_NETWORK, _LIMITS = "Network", "Limits"
_DEFAULT = Limits()


def _option(help: str, variable: str, panel: str, **more: Any) -> Any:
    return typer.Option(help=help, envvar=f"OMNIQA_{variable}", rich_help_panel=panel, **more)


@options.grouped
def serve(
    *,
    loading: options.ModelFlags,
    dropping: options.PruningFlags,
    taken: options.ClipFlags,
    encoding: options.CacheFlags,
    written: options.GenerationFlags,
    media_root: Annotated[
        Path | None,
        _option(
            "Clients may name files below this folder.",
            "MEDIA_ROOT",
            _NETWORK,
            metavar="DIR",
            autocompletion=values.complete_folder,
        ),
    ] = None,
    host: Annotated[
        str, _option("Listen on this address; others than this machine's own need a key.", "HOST", _NETWORK)
    ] = "127.0.0.1",
    port: Annotated[int, _option("Listen on this port; 0 takes a free one.", "PORT", _NETWORK)] = 8000,
    api_key: Annotated[
        str | None,
        _option(
            "What clients must send as their key. Rather set the variable: others see a command's options.",
            "API_KEY",
            _NETWORK,
            metavar="KEY",
        ),
    ] = None,
    server_name: Annotated[
        list[str] | None,
        _option("A further name by which clients call this server; repeats.", "SERVER_NAME", _NETWORK, metavar="NAME"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        _option(
            "With --allow-network: open this host though its address is private; repeats.",
            "ALLOW_HOST",
            _NETWORK,
            metavar="HOST",
        ),
    ] = None,
    max_upload: Annotated[
        float,
        _option(
            "Gigabytes of one upload or download.", "MAX_UPLOAD", _LIMITS, metavar="NUMBER", parser=values.gigabytes
        ),
    ] = _DEFAULT.upload_bytes / 1e9,
    max_stored: Annotated[
        float,
        _option(
            "Gigabytes of all that clients have sent; the least recently used gives way.",
            "MAX_STORED",
            _LIMITS,
            metavar="NUMBER",
            parser=values.gigabytes,
        ),
    ] = _DEFAULT.stored_bytes / 1e9,
    max_seconds: Annotated[
        float, _option("Seconds of a clip that are looked at.", "MAX_SECONDS", _LIMITS, min=1)
    ] = _DEFAULT.clip_s,
    queue: Annotated[
        int, _option("Questions that may wait while one is answered.", "QUEUE", _LIMITS, min=0)
    ] = _DEFAULT.queued,
    max_wait: Annotated[
        float, _option("Seconds that a question may wait.", "MAX_WAIT", _LIMITS, min=1)
    ] = _DEFAULT.wait_s,
    max_turn: Annotated[
        float, _option("Seconds that an answer may take, encoding included.", "MAX_TURN", _LIMITS, min=1)
    ] = _DEFAULT.turn_s,
    clip_memory: Annotated[
        float,
        _option(
            "Gigabytes of encoded clips that stay in memory.",
            "CLIP_MEMORY",
            _LIMITS,
            metavar="NUMBER",
            parser=values.gigabytes,
        ),
    ] = _DEFAULT.clip_bytes / 1e9,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Serve the model: an API that OpenAI's clients speak, and a page for a browser.

    Options of media, answer and pruning are what requests that say nothing get.
    """
    limits = replace(
        _DEFAULT, upload_bytes=round(1e9 * max_upload), stored_bytes=round(1e9 * max_stored), clip_s=max_seconds,
        queued=queue, wait_s=max_wait, turn_s=max_turn, clip_bytes=round(1e9 * clip_memory),
    )  # fmt: skip
    settings = ServeSettings(
        method=dropping.pruner(), host=host, port=port, server_names=tuple(server_name or ()), media_root=media_root,
        api_key=api_key, allow_network=taken.allow_network, allow_hosts=tuple(allow_host or ()),
        sampling=taken.sampling(), decoding=written.decoding(), limits=limits,
    )  # fmt: skip
    run = _server()
    listening = run.open_socket(host, port)
    with listening, fitting(loading, [*dropping.less(), *taken.less()]):
        qa = load_model(loading, encoding)
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="omniqa: %(message)s")
        run.serve(qa, settings, listening, lambda: _say_ready(qa.name, listening))


def _server() -> Any:
    """The module that runs the server.

    Raises:
        ModelError: what the server needs is not installed.
    """
    try:
        import omniqa.serve.run as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("omniqa"):
            raise
        raise ModelError(f"{error.name} is not installed. The server needs it: pip install 'omniqa[serve]'.") from error
    return run


def _say_ready(model: str, listening: "socket.socket") -> None:
    host, port = listening.getsockname()[:2]
    console.note(f"serving {model} at http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl-C ends)")
