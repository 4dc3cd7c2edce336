"""Encoded clips in a cache folder: what makes them the same, and how they are written and read."""

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from omniqa.answer import ClockJump, MediaSummary
from omniqa.cache.folder import CacheFolder
from omniqa.encoded import EncodedVideo
from omniqa.media.clip import SampledClip
from omniqa.media.sampling import Sampling
from omniqa.model.audio import AudioEncoding
from omniqa.sequence.layout import MediaShape

FORMAT = 2  # counts up whenever the same file and model would be encoded otherwise, or written otherwise
_WHOLE, _RUN = 2**16, 2**12  # values of a weight: up to so many are looked at all, of more three runs


@dataclass(frozen=True)
class Found:
    """An entry that was looked for. video: None where it is not there; warning: where it is there, and damaged."""

    video: EncodedVideo | None = None
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
            digest.update(_bytes(_some_of(weight.flatten())))
    return digest.hexdigest()


def file_key(path: str | Path, sampling: Sampling, identity: str) -> str:
    """The key of a file's content, sampled like this, by encoders of this identity. Raises OSError."""
    with open(path, "rb") as file:
        content = file_digest(file, "sha256").hexdigest()
    return _key("file", content, sorted((name, str(value)) for name, value in sampling.settings.items()), identity)


def clip_key(clip: SampledClip, identity: str) -> str:
    """The key of frames and sound at hand."""
    digest = blake2b(digest_size=16)
    for array in (clip.frames, clip.waveform):
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return _key("clip", digest.hexdigest(), clip.start, clip.end, clip.frame_times, clip.warnings, identity)


def _key(*parts: object) -> str:
    return blake2b(repr(parts).encode(), digest_size=20).hexdigest()


class EncodingCache:
    """Encoded clips in a folder, by key. Trouble with the folder costs time, never an answer."""

    def __init__(self, folder: CacheFolder) -> None:
        self.folder = folder

    def find(self, key: str, name: str) -> Found:
        """The clip of this key, its tensors on the CPU; name: what the clip is called now."""
        path = self.folder.path(key)
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                tensors = {part: file.get_tensor(part) for part in file.keys()}  # noqa: SIM118  it is no dict
            if about.pop("checksum") != _checksum(tensors):
                raise ValueError("its checksum is wrong")
            video = _from_stored(tensors, about, name)
        except FileNotFoundError:
            return Found()
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            return Found(warning=f"{path} in the cache is damaged and was left aside ({error}).")
        self.folder.used(path)
        return Found(video)

    def add(self, key: str, video: EncodedVideo) -> str | None:
        """Write a clip under this key; gives a warning where that can't be done."""
        tensors = {part: tensor.cpu().contiguous() for part, tensor in _stored(video).items()}
        about = _about(video) | {"checksum": _checksum(tensors)}
        unfinished = None
        try:
            unfinished = self.folder.unfinished(key)
            save_file(tensors, unfinished, {"about": json.dumps(about)})
            unfinished.replace(self.folder.path(key))
            self.folder.shrink()
        except (OSError, SafetensorError) as error:
            if unfinished is not None:
                unfinished.unlink(missing_ok=True)
            return f"The encoded clip could not be kept in {self.folder.folder} ({error})."
        return None


def _stored(video: EncodedVideo) -> dict[str, Tensor]:
    sound = video.audio
    audio = {} if sound is None else {"audio": sound.embeddings, "queries": sound.queries, "keys": sound.keys}
    return {"video": video.video} | audio


def _about(video: EncodedVideo) -> dict[str, Any]:
    """All but the tensors. What questions leave behind, and what encoding took, is not kept."""
    shape = asdict(video.shape) | {"grid_times": [str(time) for time in video.shape.grid_times]}
    window = video.audio.window if video.audio else None
    return {
        "name": video.name,
        "start_s": video.start_s,
        "shape": shape,
        "window": window,
        "summary": asdict(video.summary),
    }


def _from_stored(tensors: dict[str, Tensor], about: dict[str, Any], name: str) -> EncodedVideo:
    sound = None
    if about["window"] is not None:
        sound = AudioEncoding(tensors["audio"], tensors["queries"], tensors["keys"], about["window"])
    shape = MediaShape(**about["shape"])
    summary = about["summary"]
    jumps = tuple(ClockJump(**jump) for jump in summary["jumps"])
    return EncodedVideo(
        name=name,
        start_s=about["start_s"],
        shape=replace(shape, grid_times=tuple(map(Fraction, shape.grid_times))),
        video=tensors["video"],
        audio=sound,
        summary=MediaSummary(**summary | {"warnings": tuple(summary["warnings"]), "jumps": jumps}),
        timing_s={},
    )


def _some_of(values: Tensor) -> Tensor:
    if len(values) <= _WHOLE:
        return values
    middle = len(values) // 2
    return torch.cat([values[:_RUN], values[middle : middle + _RUN], values[-_RUN:]])


def _checksum(tensors: dict[str, Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(_bytes(tensors[name]), zlib.crc32(repr((name, tensors[name].shape)).encode(), total))
    return f"{total:08x}"


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
