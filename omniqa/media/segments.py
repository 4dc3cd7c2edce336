"""Packets decoded run by run, something left out between them, with an eye on what the decoder makes of that."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import av
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from omniqa.media.claims import is_only_claimed
from omniqa.media.container import Damage, is_damage
from omniqa.media.watchdog import heartbeat

# In these, a packet that no other refers to is marked as such beyond doubt. HEVC's mark leaves out its higher temporal
# layers; VP8 and VP9 store pictures that are never shown; dav1d does not ask.
_MARKED = {"h264", "mpeg1video", "mpeg2video", "mpeg4"}
_COMPLETE = _MARKED | {"hevc"}  # in these, every packet is a frame that is shown


class UnexpectedFrame(Exception):
    """What came out of the decoder is not what the container said it would be."""


class Segment(NamedTuple):
    """Packets to be decoded one after the other.

    Attributes:
        packets: may be none.
        fresh: something was left out before them; the decoder is emptied and starts anew at the first, a keyframe.
        spare: the timestamps of those that are left out where no other refers to them.
    """

    packets: Sequence[Packet]
    fresh: bool = False
    skippable: frozenset[int] = frozenset()


def decode_runs(runs: Iterator[Segment], stream: VideoStream, damage: Damage) -> Iterator[av.VideoFrame]:
    """Decode runs one after the other.

    Raises:
        UnexpectedFrame: a segment does not begin with the keyframe it should; or, after a packet was left out, frames
            don't come in the order of their times, or something can't be decoded.
    """
    decoder = _Decoder(stream, damage)
    for run in runs:
        if run.fresh:
            yield from decoder.drained()
            decoder.start_at(run.packets[0].pts if run.packets else None)
        for packet in run.packets:
            yield from decoder.frames(packet, packet.pts in run.skippable)
    yield from decoder.drained(ends=True)


class _Decoder:
    """The stream's decoder, with an eye on what comes out of it. Raises UnexpectedFrame."""

    def __init__(self, stream: VideoStream, damage: Damage) -> None:
        self._context, self._damage = stream.codec_context, damage
        self._marked, self._complete = self._context.name in _MARKED, self._context.name in _COMPLETE
        self._holds = self._left_out = False
        self._landing: int | None = None  # the keyframe that is to come
        self._due: int | None = None  # the last frame that is to come
        self._last: int | None = None

    def start_at(self, timestamp: int | None) -> None:
        """Begin anew. The first frame is to be a keyframe of that timestamp."""
        if self._holds:
            self._context.flush_buffers()
        self._holds, self._landing, self._due, self._last = False, timestamp, None, None
        self._left_out = self._left_out or timestamp is not None

    def frames(self, packet: Packet, skippable: bool) -> Iterator[av.VideoFrame]:
        """Decode a packet; a spare one only where others refer to it."""
        skippable = skippable and self._marked
        self._left_out = self._left_out or skippable
        # Threads that decode ahead take this over with each packet.
        self._context.skip_frame = "NONREF" if skippable else "DEFAULT"
        self._holds = True
        if self._complete and packet.pts is not None and not (skippable or packet.is_discard):
            self._due = packet.pts if self._due is None else max(self._due, packet.pts)
        yield from self._decoded(packet)

    def drained(self, ends: bool = False) -> Iterator[av.VideoFrame]:
        """What the decoder still holds: an error among it would hide what follows, and be told by nobody."""
        if self._holds:
            yield from self._decoded(None)
        lost = self._due is not None and self._last != self._due and (self._left_out or not ends)
        if lost or self._landing is not None:
            raise UnexpectedFrame

    def _decoded(self, packet: Packet | None) -> Iterator[av.VideoFrame]:
        try:
            frames: list[av.VideoFrame] = self._context.decode(packet)
        except av.error.FFmpegError as error:
            if not (is_damage(error) or is_only_claimed(error, partial(self._context.decode, packet))):
                raise
            self._damage.packets += 1
            frames = []
        heartbeat()
        if self._damage.packets and self._left_out:
            raise UnexpectedFrame
        yield from filter(self._is_shown, frames)

    def _is_shown(self, frame: av.VideoFrame) -> bool:
        """False for frames that a keyframe's own group shows before it: those need the group before."""
        if not self._left_out:
            self._last = frame.pts
            return True
        if frame.pts is None or (self._last is not None and frame.pts < self._last):
            raise UnexpectedFrame
        if self._landing is not None:
            if frame.pts < self._landing:
                return False
            whole = frame.key_frame and frame.pict_type == PictureType.I and not frame.is_corrupt
            if frame.pts > self._landing or not whole:
                raise UnexpectedFrame
            self._landing = None
        self._last = frame.pts
        return True
