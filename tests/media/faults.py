"""PyAV with a fault in one of its calls, whatever allocates, reads or computes.

That is opening (and with it the making of codec contexts), seeking, reading a packet, decoding one, converting a
picture or a sound, resampling, and a filter graph's steps.
"""

from dataclasses import dataclass
from types import GeneratorType
from typing import Any

import av
import pytest
from av.codec.context import CodecContext
from av.container import InputContainer
from av.container.streams import StreamContainer
from av.filter import Graph
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.stream import Stream

from omniqa.media import geometry

_OPEN = av.open
_COUNTED = {
    "seek", "decode", "flush_buffers", "to_ndarray", "reformat", "resample",
    "add", "add_buffer", "link_nodes", "configure", "push", "pull",
}  # fmt: skip
_WRAPPED = (
    InputContainer, StreamContainer, Stream, CodecContext, Packet, av.VideoFrame, av.AudioFrame, av.AudioResampler,
    Graph,
)  # fmt: skip


@dataclass
class Faults:
    """Calls are counted; number `at`, and those after it where it `lasts`, raises `error`."""

    error: Exception
    at: int = 0
    lasts: bool = False
    calls: int = 0
    struck: bool = False

    def step(self) -> None:
        self.calls += 1
        if self.at and (self.calls == self.at or (self.lasts and self.calls > self.at)):
            self.struck = True
            raise self.error

    def open(self, *arguments: Any, **options: Any) -> Any:
        """In place of `av.open`."""
        self.step()
        return self.wrap(_OPEN(*arguments, **options))

    def put_in(self, patch: pytest.MonkeyPatch) -> None:
        """Let the package meet PyAV with the fault."""
        patch.setattr(av, "open", self.open)
        patch.setattr(av, "Packet", self._making(av.Packet))
        patch.setattr(av, "AudioResampler", self._making(av.AudioResampler))
        patch.setattr(av.filter, "Graph", self._making(Graph))
        patch.setattr(geometry, "SideDataContainer", lambda frame: SideDataContainer(_real(frame)))

    def _making(self, kind: type) -> Any:
        def make(*arguments: Any, **options: Any) -> Any:
            self.step()
            return self.wrap(kind(*map(_real, arguments), **options))

        return make

    def wrap(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(self.wrap, value))
        if isinstance(value, GeneratorType) or type(value).__name__ == "generator":
            return self._read(value)
        return _Shim(value, self) if isinstance(value, _WRAPPED) else value

    def _read(self, packets: Any) -> Any:
        """Reading may go on after an error, as FFmpeg's does: the packet that was not read comes next."""
        return _Reader(packets, self)


class _Reader:
    def __init__(self, packets: Any, faults: Faults) -> None:
        self._packets, self._faults = packets, faults

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> Any:
        self._faults.step()
        return self._faults.wrap(next(self._packets))


class _Shim:
    """An object of PyAV, its calls counted. It passes for the real one, except in PyAV itself, which is given that."""

    def __init__(self, real: Any, faults: Faults) -> None:
        object.__setattr__(self, "_real", real)
        object.__setattr__(self, "_faults", faults)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._real)

    def __getattr__(self, name: str) -> Any:
        value, faults = getattr(self._real, name), self._faults
        if not callable(value):
            return faults.wrap(value)

        def call(*arguments: Any, **options: Any) -> Any:
            if name in _COUNTED:
                faults.step()
            return faults.wrap(value(*map(_real, arguments), **{key: _real(one) for key, one in options.items()}))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)

    def __eq__(self, other: object) -> bool:
        return self._real is _real(other)

    def __hash__(self) -> int:
        return id(self._real)

    def __bytes__(self) -> bytes:
        return bytes(self._real)

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._real)

    def __iter__(self) -> Any:
        return iter(self._faults.wrap(list(self._real)))

    def __enter__(self) -> Any:
        self._real.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._real.__exit__(*error)


def _real(value: Any) -> Any:
    return value._real if type(value) is _Shim else value
