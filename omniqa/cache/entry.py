"""An entry's file: a safetensors file of a clip's encodings, whose header says what they are. Free of torch.

Nothing that a header says is taken at its word. safetensors checks that it fits the file; every tensor's type and shape
follow from the clip that it claims to hold and from the file's real size. Only then is anything allocated.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from hashlib import blake2b
from itertools import pairwise
from typing import Any, BinaryIO

from omniqa import json_output, strict_json, tensor_file, typed_json
from omniqa.media.access import CLIP_SECONDS
from omniqa.media.summary import MediaSummary

METADATA = "omniqa"  # one name, for their order would not be the same each time
MASK = "U8"
ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, MASK: 1}
_LARGEST = 2**53 - 1  # whole numbers beyond it are not exact in all of JSON's readers
_PIECE = 2**20
_SECONDS = re.compile(r"\d{1,40}(/0*[1-9]\d{0,39})?", re.ASCII)


@dataclass(frozen=True)
class About:
    """What a header says about the clip; all but its tensors.

    Attributes:
        key: what the entry is found by.
        grid_times: as fractions of seconds, "1/3".
        window: of the sound, in positions; None without sound.
        kept: video tokens that a rule kept; None where none was applied.
    """

    key: str
    name: str
    start_s: float
    grid_times: tuple[str, ...]
    rows: int
    cols: int
    audio_tokens: int
    window: int | None
    summary: MediaSummary
    kept: int | None = None

    @property
    def video_tokens(self) -> int:
        """Tokens of all grids."""
        return len(self.grid_times) * self.rows * self.cols


@dataclass(frozen=True)
class Form:
    """What a model's encodings look like, whatever the clip.

    Attributes:
        dtype: as safetensors calls it.
        width: of an embedding.
        heads, head_size, window: of the sound's queries and keys.
    """

    dtype: str
    width: int
    heads: int
    head_size: int
    window: int


@dataclass(frozen=True)
class Stored:
    """A tensor in the file; begin and end count bytes from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A header that agrees with itself and with the file's size. text: `about` as it was written."""

    about: About
    text: str
    digest: str
    tensors: Mapping[str, Stored]

    def check(self, key: str, form: Form | None) -> None:
        """Raises ValueError if the entry is not the one of this key, or not of a model of this form."""
        if self.about.key != key:
            raise ValueError("it is the entry of another key")
        if form is None:
            return
        if self.about.window not in (None, form.window):
            raise ValueError(f"its window is {self.about.window}, not {form.window}")
        for name, stored in self.tensors.items():
            inner = (form.width,) if name in _EMBEDDINGS else (form.heads, form.head_size)
            if name not in (KEEP, ATTENTION) and (stored.dtype, stored.shape[1:]) != (form.dtype, inner):
                raise ValueError(f"{name!r} is {stored.dtype} of shape {stored.shape}, which the model does not make")


_BASIC: dict[Any, typed_json.Reader] = {
    str: typed_json.text,
    int: typed_json.whole(0, _LARGEST),
    float: typed_json.number(-_LARGEST, _LARGEST),
}
_ABOUT = typed_json.of_type(About, _BASIC)
_EMBEDDINGS = ("video", "audio")
_SOUND = ("audio", "queries", "keys")
KEEP = "keep"
ATTENTION = "attention"  # that video tokens receive


def read_header(file: BinaryIO) -> Header:
    """The header of an entry's file, which is read from its start.

    Raises:
        OSError: the file can't be read.
        ValueError: the header is damaged, or does not fit the file; the message says how.
    """
    try:
        found = tensor_file.read_header(file)
    except ValueError as error:
        raise ValueError(f"it {error}") from error
    if set(found.metadata) != {METADATA}:
        raise ValueError("its header lacks what omniqa writes, or holds more")
    digest, _, text = found.metadata[METADATA].partition(" ")
    about = _ABOUT(_read_object(text))
    tensors = dict(_stored(found))
    _check_shapes(about, tensors)
    return Header(about, text, digest, tensors)


def metadata(about: About, digest: Callable[[str], str]) -> dict[str, str]:
    """What goes into the header beside the tensors; digest: makes it of the text about the clip."""
    text = json_output.dumps(asdict(about))
    return {METADATA: f"{digest(text)} {text}"}


def content_digest(about: str, tensors: Mapping[str, tuple[str, tuple[int, ...]]], read: "Reader") -> str:
    """BLAKE2b over all that an entry holds.

    Args:
        about: the header's text about the clip.
        tensors: type and shape of each, by name.
        read: gives a tensor's bytes, by its name, in pieces.
    """
    digest = blake2b(digest_size=32)
    digest.update(repr((about, sorted(tensors.items()))).encode())
    for name in sorted(tensors):
        for piece in read(name):
            digest.update(piece)
    return digest.hexdigest()


Reader = Callable[[str], Iterable[Any]]


def check_digest(file: BinaryIO, header: Header) -> None:
    """Check the file's content against its digest, a piece at a time.

    Raises:
        ValueError: they do not fit.
    """
    described = {name: (stored.dtype, stored.shape) for name, stored in header.tensors.items()}
    found = content_digest(header.text, described, lambda name: pieces(file, header.tensors[name]))
    if found != header.digest:
        raise ValueError("its content does not fit its digest")


def pieces(file: BinaryIO, stored: Stored) -> Iterator[bytes]:
    """A tensor's bytes, some at a time.

    Raises:
        ValueError: the file is shorter than it was.
    """
    file.seek(stored.begin)
    left = stored.end - stored.begin
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise ValueError("it is cut short")
        yield piece
        left -= len(piece)


def _read_object(text: str) -> dict[str, Any]:
    value = strict_json.parse(text, any_text=True, unique=True)
    if not isinstance(value, dict):
        raise ValueError("its header is no object")
    return value


def _stored(found: tensor_file.TensorFile) -> Iterator[tuple[str, Stored]]:
    """Where each tensor lies; they follow each other without a gap."""
    at = found.data_at
    for name, (dtype, shape) in found.tensors.items():
        if dtype not in ITEM_BYTES:
            raise ValueError(f"{name!r} is of the type {dtype}")
        end = at + math.prod(shape) * ITEM_BYTES[dtype]
        yield name, Stored(dtype, shape, at, end)
        at = end


def _check_shapes(about: About, tensors: Mapping[str, Stored]) -> None:
    """Whether these are the tensors that the clip has, each with as many rows."""
    sound = about.window is not None
    pruned = about.kept is not None
    if set(tensors) - {ATTENTION} != {"video", *(_SOUND if sound else ()), *((KEEP,) if pruned else ())}:
        raise ValueError(f"it holds {', '.join(sorted(tensors)) or 'nothing'}, which is not what the clip has")
    shapes = {name: stored.shape for name, stored in tensors.items()}
    right = len(shapes["video"]) == 2 and shapes["video"][0] == (about.kept if pruned else about.video_tokens)
    right &= all((stored.dtype == MASK) == (name == KEEP) for name, stored in tensors.items())
    if ATTENTION in tensors:
        right &= (tensors[ATTENTION].dtype, shapes[ATTENTION]) == ("F32", (about.video_tokens,))
    if pruned:
        right &= shapes[KEEP] == (about.video_tokens,)
    if sound:
        right &= shapes["audio"] == (about.audio_tokens, *shapes["video"][1:]) and about.window != 0
        right &= len(shapes["keys"]) == 3 and shapes["keys"] == shapes["queries"]
        right &= shapes["keys"][:1] in {(2 * about.audio_tokens,), (2 * about.audio_tokens + 1,)}
    if not right or sound != (about.audio_tokens > 0):
        raise ValueError("its tensors have not the shapes that the clip takes")
    if not all(_SECONDS.fullmatch(time) for time in about.grid_times):
        raise ValueError("its grids have no times")
    times = [*map(Fraction, about.grid_times), Fraction(CLIP_SECONDS)]
    if any(later <= time for time, later in pairwise(times)):
        raise ValueError("the times of its grids do not rise")
