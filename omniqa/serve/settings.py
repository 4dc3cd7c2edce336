"""What the server is told when it is started: where it listens, what it may read, and its limits."""

from dataclasses import dataclass, field
from pathlib import Path

from omniqa.errors import UsageError
from omniqa.media.sampling import ClipOptions
from omniqa.pruning.contract import AnyMethod
from omniqa.runtime.generation_options import GenerationOptions

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MEGABYTE = 10**6


@dataclass(frozen=True)
class Limits:
    """What clients may use.

    Attributes:
        upload_bytes: of one uploaded or downloaded file.
        stored_bytes: of all files that are kept for clients; the least recently used give way.
        body_bytes: of one request's JSON, data URLs included.
        bodies_bytes: of the JSON of all requests that are open.
        clip_s: seconds of a clip that are looked at.
        queued: questions that may wait while another is answered.
        wait_s: how long one of them waits.
        turn_s: how long one may take once it is its turn.
        clip_bytes: of encoded clips that stay in memory.
        body_grace_s: seconds that a body may take beside those of `body_rate`.
        body_rate: bytes a second below which a client is given up.
        header_s: seconds within which a request's headers must be there.
        unread_s: seconds after which a client that reads nothing of its response is given up.
        linger_s: seconds in which a client that was refused may still send, so that it can read why.
        grace_s: seconds that open requests have when the server is told to end.
    """

    upload_bytes: int = 2000 * MEGABYTE
    stored_bytes: int = 8000 * MEGABYTE
    body_bytes: int = 64 * MEGABYTE
    bodies_bytes: int = 512 * MEGABYTE
    clip_s: float = 3600.0
    queued: int = 8
    wait_s: float = 120.0
    turn_s: float = 900.0
    clip_bytes: int = 4000 * MEGABYTE
    body_grace_s: float = 20.0
    body_rate: int = 32_000
    header_s: float = 10.0
    unread_s: float = 60.0
    linger_s: float = 10.0
    grace_s: float = 30.0


@dataclass(frozen=True)
class ServeSettings:
    """How the server is run.

    Attributes:
        method: answers requests that name none.
        host: the address that it listens on.
        port: likewise; 0 takes a free one.
        server_names: names by which clients may call it, beside those of `host`.
        media_root: the folder whose files clients may name; None is none.
        api_key: what clients must send; None lets all in.
        allow_network: whether clients may name addresses.
        allow_hosts: hosts whose addresses may be private.
        sampling: of requests that say nothing; they may not exceed its frames and pixels.
        decoding: of requests that say nothing.
        limits: what clients may use.

    Raises:
        UsageError: others than this machine could reach the server without a key, or the folder is not there.
    """

    method: AnyMethod
    host: str = "127.0.0.1"
    port: int = 8000
    server_names: tuple[str, ...] = ()
    media_root: Path | None = None
    api_key: str | None = None
    allow_network: bool = False
    allow_hosts: tuple[str, ...] = ()
    sampling: ClipOptions = field(default_factory=ClipOptions)
    decoding: GenerationOptions = field(default_factory=GenerationOptions)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.api_key is not None and not self.api_key.strip():
            raise UsageError("The key is empty.", field="api_key")
        if self.host not in LOOPBACK and self.api_key is None:
            raise UsageError(
                f"Anyone who reaches {self.host} could use the model.",
                field="api_key",
                advice="Set {api_key}, or listen on 127.0.0.1.",
            )
        if self.media_root is not None and not self.media_root.is_dir():
            raise UsageError(f"There is no folder {self.media_root}.", field="media_root")
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"A port is 0 to 65535, not {self.port}.", field="port")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK
