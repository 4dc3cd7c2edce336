"""A span of a file by copied packets, if its keyframes allow that."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet

from omniqa.errors import MediaError
from omniqa.media.container import (
    Damage,
    Stream,
    clock_zero,
    demuxed,
    main_stream,
    open_media,
    seek,
    seek_targets,
    spacing,
    time_base,
    timed_frames,
)
from omniqa.media.probe import MediaInfo

_EXACT = Fraction(1, 1000)  # Matroska's times are whole milliseconds
_SOUND_SLACK = Fraction(1, 5)  # seconds by which a copy's sound may be shorter: packets at both ends, priming
_FAR = Fraction(10)  # seconds by which streams may lie apart in a file
_MOST_BYTES = 2**28  # held at a time; a longer span is encoded again

_MP4 = ({"h264", "hevc", "av1", "mpeg4"}, {"aac", "mp3", "ac3", "eac3", "alac"})
_WEBM = ({"vp8", "vp9", "av1"}, {"opus", "vorbis"})
_SOUND_ALONE = {
    "aac": ("mp4", ".m4a"), "alac": ("mp4", ".m4a"), "mp3": ("mp3", ".mp3"), "flac": ("flac", ".flac"),
    "opus": ("ogg", ".ogg"), "vorbis": ("ogg", ".ogg"), "pcm_s16le": ("wav", ".wav"), "pcm_s24le": ("wav", ".wav"),
    "pcm_f32le": ("wav", ".wav"), "pcm_u8": ("wav", ".wav"),
}  # fmt: skip


class NotCopyable(Exception):
    """Keyframes or timestamps do not allow a copy of the span."""


@dataclass
class _Track:
    """The packets of one stream that a span needs.

    Attributes:
        stream: of the file.
        start, end: of the span, in seconds on the raw axis of the timestamps.
        early: by how much of its length the first packet may begin before the span; None by nothing.
        packets: in the order of the file.
        last: when the last of them begins, in seconds from the span's start.
        over: whether all that follows is beyond the span. far: whether it is well beyond.
    """

    stream: Stream
    start: Fraction
    end: Fraction
    early: Fraction | None = None
    packets: list[Packet] = field(default_factory=list)
    last: Fraction = Fraction(0)
    over: bool = False
    far: bool = False
    _beyond: bool = False

    def take(self, packet: Packet) -> int:
        """Keep a packet if the span needs it; returns the bytes kept. Raises NotCopyable."""
        is_video, tick = isinstance(self.stream, av.VideoStream), time_base(self.stream)
        if packet.is_discard and not is_video:  # the encoder's priming
            return 0
        if packet.pts is None or packet.is_discard or packet.is_corrupt:
            raise NotCopyable
        time = packet.pts * tick
        decoded = time - _FAR if packet.dts is None else packet.dts * tick
        self.over, self.far = decoded >= self.end - _EXACT, decoded >= self.end + _FAR
        if time >= self.end - _EXACT:
            self._beyond = True
            return 0
        if time < self.start - (_EXACT if self.early is None else self.early * (packet.duration or 0) * tick):
            return 0
        if self._beyond and is_video:  # it needs a frame that is shown after the span
            raise NotCopyable
        if is_video:
            self._check_first(packet, time)
        self.packets.append(packet)
        self.last = max(self.last, time - self.start)
        return packet.size

    def _check_first(self, packet: Packet, time: Fraction) -> None:
        """The first frame of the span is a keyframe, and at its start; none of the span comes before it."""
        tick = time_base(self.stream)
        if self.packets:
            if packet.pts is not None and self.packets[0].pts is not None and packet.pts < self.packets[0].pts:
                raise NotCopyable
        elif not packet.is_keyframe or time - self.start > spacing(self.stream) + max(_EXACT, tick):
            raise NotCopyable


def copy_span(info: MediaInfo, start: Fraction, end: Fraction, file: Path) -> str | None:
    """Copy a span's packets of picture and sound.

    Args:
        info: the media file.
        start: of the span, in seconds on the file's clock.
        end: likewise.
        file: written to.

    Returns:
        The suffix that the container goes by; None if the span can't be copied.
    """
    if not info.clock.steady:
        return None
    try:
        with open_media(info.path, info.access) as container:
            tracks = _collected(container, info, start, end)
            suffix = _write(tracks, file)
        _verify(tracks, file)
    except (NotCopyable, av.FFmpegError, MediaError, ValueError):  # FFmpeg's muxers are choosy; the encoder is not
        return None
    return suffix


def _collected(container: InputContainer, info: MediaInfo, start: Fraction, end: Fraction) -> list[_Track]:
    """The streams that have packets in the span. Raises NotCopyable."""
    streams = [main_stream(container, "video"), main_stream(container, "audio", info.access.audio_track)]
    used = [stream for stream in streams if stream is not None]
    zero = clock_zero(container)
    # Sound alone begins with its first packet, whatever its time: the nearest one comes first.
    early = None if info.video else Fraction(1, 2)
    tracks = {stream.index: _Track(stream, start + zero, end + zero, early) for stream in used}
    targets = seek_targets(start)
    if targets:
        seek(container, used[0], targets[-1] if not isinstance(used[0], av.VideoStream) else start + _EXACT)
    held, damage = 0, Damage()
    for packet in demuxed(container, tuple(used), damage):
        if not packet.size:
            continue
        held += tracks[packet.stream.index].take(packet)
        if held > _MOST_BYTES:
            raise NotCopyable
        if all(track.over for track in tracks.values()) or any(track.far for track in tracks.values()):
            break
    _check_begins(info, list(tracks.values()), start)
    kept = [track for track in tracks.values() if track.packets]
    if damage.packets or damage.broken_off or not kept:
        raise NotCopyable
    return kept


def _check_begins(info: MediaInfo, tracks: list[_Track], start: Fraction) -> None:
    """Raises NotCopyable if a seek led beyond the first packets that the span needs."""
    for track in tracks:
        about = info.video if isinstance(track.stream, av.VideoStream) else info.audio
        if about is None or about.start > start or about.end <= start + _SOUND_SLACK:
            continue
        first = track.packets[0].pts if track.packets else None
        if first is None or first * time_base(track.stream) - track.start > _SOUND_SLACK:
            raise NotCopyable


def _codec(stream: Stream) -> str:
    return stream.codec_context.codec.canonical_name


def _container(streams: list[Stream]) -> tuple[str, str]:
    """FFmpeg's name of a container that holds these streams, and its suffix."""
    pictures = {_codec(stream) for stream in streams if isinstance(stream, av.VideoStream)}
    sounds = {_codec(stream) for stream in streams} - pictures
    if not pictures:
        return _SOUND_ALONE.get(next(iter(sounds)), ("matroska", ".mka"))
    for name, suffix, (video, audio) in (("mp4", ".mp4", _MP4), ("webm", ".webm", _WEBM)):
        if pictures <= video and sounds <= audio:
            return name, suffix
    return "matroska", ".mkv"


def _write(tracks: list[_Track], file: Path) -> str:
    """Write the packets, the span's start at 0; returns the suffix."""
    name, suffix = _container([track.stream for track in tracks])
    # Of MP3 the header would claim the priming of the file's own start, and cut as much off.
    options = {"write_xing": "0"} if name == "mp3" else {}
    with av.open(str(file), "w", format=name, options=options) as out:
        streams = {track.stream.index: out.add_stream_from_template(track.stream) for track in tracks}
        for packet, track in _in_order(tracks):
            early = round(track.start / time_base(track.stream))
            packet.pts = packet.pts - early if packet.pts is not None else None
            packet.dts = packet.dts - early if packet.dts is not None else None
            packet.stream = streams[track.stream.index]
            out.mux(packet)
    return suffix


def _in_order(tracks: list[_Track]) -> Iterator[tuple[Packet, _Track]]:
    """All packets by decoding time, each stream's own order kept."""
    pairs = [(packet, track) for track in tracks for packet in track.packets]
    decoded = [
        (packet.dts if packet.dts is not None else packet.pts or 0) * time_base(track.stream) for packet, track in pairs
    ]
    order = sorted(range(len(pairs)), key=lambda k: decoded[k])
    return (pairs[k] for k in order)


def _verify(tracks: list[_Track], file: Path) -> None:
    """Decode the copy. Raises NotCopyable if frames are missing or damaged, or sound is short."""
    for track in tracks:
        damage = Damage()
        kind = "video" if isinstance(track.stream, av.VideoStream) else "audio"
        with closing(timed_frames(file, kind, Fraction(0), damage)) as frames:  # type: ignore[arg-type]
            spans = [(frame.start, frame.end) for frame in frames]
        if damage.packets or damage.broken_off or not spans:
            raise NotCopyable
        if kind == "video" and len(spans) != len(track.packets):
            raise NotCopyable
        if spans[-1][1] < track.last - _SOUND_SLACK:
            raise NotCopyable
