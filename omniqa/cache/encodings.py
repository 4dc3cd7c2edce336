"""Encoded clips in a cache folder: what makes them the same, and how they are written and read."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from omniqa.cache.entry import (
    ATTENTION,
    KEEP,
    MASK,
    About,
    Form,
    Stored,
    check_digest,
    content_digest,
    metadata,
    pieces,
    read_header,
)
from omniqa.cache.folder import CacheFolder
from omniqa.media.clip import Clip
from omniqa.media.sampling import ClipOptions
from omniqa.memory import is_out_of_memory
from omniqa.models.base import MediaShape
from omniqa.models.encoded_media import AudioEncoding, EncodedMedia
from omniqa.pruning.vision_rule import VisionRule

FORMAT = 6  # counts up whenever the same file and model would be encoded otherwise, or written otherwise
# As safetensors calls them.
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: MASK}
_TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}
_NOT_FINITE = "it holds NaN or infinity"
_WHOLE, _RUN = 2**16, 2**12  # values of a weight: up to so many are looked at all, of more three runs


@dataclass(frozen=True)
class Found:
    """An entry that was looked for. media: None if it is not there; warning: if it was there, and damaged."""

    media: EncodedMedia | None = None
    warning: str | None = None


def encoder_identity(parts: Iterable[nn.Module], *more: object) -> str:
    """What tells encoders apart: names, shapes and values of their weights, and `more`, which changes results, too.

    Of each weight all values up to 65,536 are looked at, of a larger one the first, middle and last 4096: reading
    gigabytes would take longer than what the cache saves.
    """
    digest = blake2b(repr((FORMAT, *more)).encode(), digest_size=16)
    for part in parts:
        for name, weight in part.state_dict().items():
            digest.update(repr((name, tuple(weight.shape), weight.dtype)).encode())
            for values in _inner_tensors(weight):
                digest.update(as_bytes(_some_of(values.flatten())))
    return digest.hexdigest()


def _inner_tensors(weight: Tensor) -> list[Tensor]:
    """What a tensor consists of: itself, or what torchao's quantised ones wrap."""
    if not is_traceable_wrapper_subclass(weight):
        return [weight]
    return [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]


def file_key(path: str | Path, sampling: ClipOptions, identity: str) -> str:
    """The key of a file's content, sampled like this, by encoders of this identity. Raises OSError."""
    with open(path, "rb") as file:
        content = file_digest(file, "sha256").hexdigest()
    return _key("file", content, sorted((name, str(value)) for name, value in sampling.settings.items()), identity)


def clip_key(clip: Clip, identity: str) -> str:
    """The key of frames and sound at hand."""
    digest = blake2b(digest_size=16)
    for array in (clip.frames, clip.waveform):
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return _key("clip", digest.hexdigest(), clip.start, clip.end, clip.frame_times, clip.warnings, identity)


def entry_key(key: str, rule: VisionRule | None, attended: bool) -> str:
    """The key of the same clip whose video was pruned by `rule`, and with the video's attention if it is attended."""
    if rule is not None:
        key = _key("pruned", key, rule.identity)
    return _key("attended", key) if attended else key


def _key(*parts: object) -> str:
    return blake2b(repr(parts).encode(), digest_size=20).hexdigest()


class EncodingCache:
    """Encoded clips in a folder, by key. Trouble with the folder costs time, never an answer."""

    def __init__(self, folder: CacheFolder) -> None:
        self.folder = folder

    def find(self, key: str, form: Form | None = None, rule: VisionRule | None = None, attended: bool = False) -> Found:
        """The clip of this key, its tensors on the CPU. An entry that is damaged, or is none, is taken away.

        Args:
            key: what `add` was given.
            form: what the model's encodings look like; an entry that looks otherwise counts as damaged.
            rule: the rule by which its video was pruned; None finds the clip with all tokens.
            attended: find it with the attention that its video tokens receive.

        Raises:
            MemoryError, RuntimeError, OSError: of the kinds that `is_out_of_memory` knows, and no others.
        """
        key = entry_key(key, rule, attended)
        path = self.folder.path(key)
        try:
            with self.folder.open(path) as file:
                header = read_header(file)
                header.check(key, form)
                check_digest(file, header)
                tensors = {part: _read(file, stored) for part, stored in header.tensors.items()}
            if not _finite(tensors):
                raise ValueError(_NOT_FINITE)
            if attended != (ATTENTION in tensors):
                raise ValueError("the attention that its video tokens receive is missing, or was not asked for")
            media = _media(tensors, header.about, rule)
        except (FileNotFoundError, NotADirectoryError):
            return Found()
        except (OSError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            self.folder.drop(path)
            reason = (isinstance(error, OSError) and error.strerror) or error
            return Found(warning=f"{path} in the cache is damaged and was removed ({reason}).")
        self.folder.used(path)
        return Found(media)

    def add(self, key: str, name: str, video: EncodedMedia) -> str | None:
        """Write a clip under this key; gives a warning where that can't be done."""
        key = entry_key(key, video.rule, video.video_attention is not None)
        tensors = {part: tensor.cpu().contiguous() for part, tensor in _stored(video).items()}
        if not _finite(tensors):
            return f"The encoded clip was not kept in {self.folder.folder}: {_NOT_FINITE}."
        described = {part: (DTYPES[tensor.dtype], tuple(tensor.shape)) for part, tensor in tensors.items()}
        told = metadata(
            _about(key, name, video),
            lambda text: content_digest(text, described, lambda part: [as_bytes(tensors[part])]),
        )
        unfinished = None
        try:
            unfinished = self.folder.unfinished(key)
            save_file(tensors, unfinished, told)
            unfinished.replace(self.folder.path(key))
            self.folder.shrink()
        except (OSError, SafetensorError) as error:
            if unfinished is not None:
                self.folder.drop(unfinished)
            if is_out_of_memory(error):
                raise
            return f"The encoded clip could not be kept in {self.folder.folder} ({error})."
        return None


def _stored(video: EncodedMedia) -> dict[str, Tensor]:
    sound = video.audio
    audio = {} if sound is None else {"audio": sound.embeddings, "queries": sound.queries, "keys": sound.keys}
    mask = {} if video.keep is None else {KEEP: video.keep.to(torch.uint8)}
    attention = {} if video.video_attention is None else {ATTENTION: video.video_attention}
    return {"video": video.video} | audio | mask | attention


def _about(key: str, name: str, video: EncodedMedia) -> About:
    """All but the tensors. What questions leave behind, and what encoding took, is not kept."""
    shape = video.shape
    return About(
        key=key,
        name=name,
        start_s=video.start_s,
        grid_times=tuple(map(str, shape.grid_times)),
        rows=shape.rows,
        cols=shape.cols,
        audio_tokens=shape.audio_tokens,
        window=video.audio.window if video.audio else None,
        summary=video.summary,
        kept=None if video.keep is None else len(video.video),
    )


def _media(tensors: dict[str, Tensor], about: About, rule: VisionRule | None) -> EncodedMedia:
    """The clip of an entry.

    Raises:
        ValueError: it was pruned by no rule and one was asked for, or the reverse.
    """
    keep = tensors.get(KEEP)
    if (keep is None) != (rule is None) or (keep is not None and rule is not None and not _fits(keep, about, rule)):
        raise ValueError("its video tokens are not those that its mask names")
    if keep is not None and rule is not None:
        grids = len(about.grid_times)
        counts = rule.counts(grids, about.rows * about.cols)
        if tuple((keep == 1).view(grids, -1).sum(1).tolist()) != counts:
            raise ValueError("its rule does not keep so many tokens")
    sound = None
    if about.window is not None:
        sound = AudioEncoding(tensors["audio"], tensors["queries"], tensors["keys"], about.window)
    times = tuple(map(Fraction, about.grid_times))
    return EncodedMedia(
        start_s=about.start_s,
        shape=MediaShape(times, about.rows, about.cols, about.audio_tokens),
        video=tensors["video"],
        audio=sound,
        summary=about.summary,
        rule=rule,
        keep=None if keep is None else keep == 1,
        video_attention=tensors.get(ATTENTION),
    )


def _fits(keep: Tensor, about: About, rule: VisionRule) -> bool:
    """Whether a mask names as many tokens of each grid as the rule keeps, and as many as there are."""
    counts = rule.counts(len(about.grid_times), about.rows * about.cols)
    by_grid = keep.view(len(counts), -1).sum(1).tolist()
    return bool((keep <= 1).all()) and by_grid == list(counts) and sum(counts) == about.kept


def _read(file: BinaryIO, stored: Stored) -> Tensor:
    """A tensor of a file whose digest is right.

    Raises:
        ValueError: the file has become shorter since.
    """
    tensor = torch.empty(stored.shape, dtype=_TORCH_DTYPES[stored.dtype])
    held, at = as_bytes(tensor), 0
    for piece in pieces(file, stored):
        held[at : at + len(piece)] = piece
        at += len(piece)
    return tensor


def _finite(tensors: dict[str, Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def _some_of(values: Tensor) -> Tensor:
    if len(values) <= _WHOLE:
        return values
    middle = len(values) // 2
    return torch.cat([values[:_RUN], values[middle : middle + _RUN], values[-_RUN:]])


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, which are copied only if it is not contiguous or not on the CPU."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
