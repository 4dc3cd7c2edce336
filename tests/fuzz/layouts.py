"""Where the fields of a container lie: small parsers, each for files that are whole.

A parser gives fields (sizes, counts, times, dimensions, …) and chunks: pieces that may be dropped, doubled or swapped.
"""

import re
import struct
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Field:
    """A number in the file. kind: what it means. little: its byte order."""

    at: int
    size: int
    kind: str
    little: bool = False


@dataclass
class Layout:
    """What a mutation may aim at. chunks: (start, end), rising."""

    fields: list[Field] = field(default_factory=list)
    chunks: list[tuple[int, int]] = field(default_factory=list)

    def add(self, start: int, *fields: tuple[int, int, str], little: bool = False) -> None:
        """Fields by (offset from `start`, size, kind)."""
        self.fields += [Field(start + at, size, kind, little) for at, size, kind in fields]


_HOLDING = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf", b"dinf", b"udta"}
_BOX_FIELDS: dict[bytes, tuple[tuple[int, int, str], ...]] = {
    b"mvhd": ((8, 1, "version"), (20, 4, "time scale"), (24, 4, "duration"), (28, 4, "rate")),
    b"tkhd": ((8, 1, "version"), (20, 4, "id"), (28, 4, "duration"), (48, 4, "matrix"), (84, 4, "dimension"),
              (88, 4, "dimension")),
    b"mdhd": ((8, 1, "version"), (20, 4, "time scale"), (24, 4, "duration")),
    b"elst": ((12, 4, "count"), (16, 4, "duration"), (20, 4, "time"), (24, 2, "rate")),
    b"stsd": ((12, 4, "count"), (16, 4, "size"), (20, 4, "codec"), (30, 2, "id"), (40, 2, "channels"),
              (48, 4, "dimension"), (48, 2, "rate"), (50, 2, "dimension")),
    b"trex": ((12, 4, "id"), (20, 4, "duration"), (24, 4, "size")),
    b"tfhd": ((9, 3, "flags"), (12, 4, "id"), (16, 4, "size")),
    b"tfdt": ((12, 4, "time"), (16, 4, "time")),
    b"trun": ((9, 3, "flags"), (12, 4, "count"), *((at, 4, "table") for at in range(16, 32, 4))),
    b"hdlr": ((16, 4, "id"),),
    b"ftyp": ((8, 4, "id"),),
}  # fmt: skip
_TABLES = {b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"stss", b"co64"}
_ENTRIES = 12  # of a table, that are aimed at


def boxes(data: bytes) -> Layout:
    """MP4, MOV, 3GP."""
    layout = Layout()

    def walk(at: int, end: int) -> None:
        while at + 8 <= end:
            size, name = struct.unpack(">I4s", data[at : at + 8])
            if not 8 <= size <= end - at:
                return
            layout.add(at, (0, 4, "size"), (4, 4, "id"), *_BOX_FIELDS.get(name, ()))
            layout.chunks.append((at, at + size))
            if name in _TABLES:
                words = range(12, min(size, 16 + 4 * _ENTRIES), 4)
                layout.add(at, *((k, 4, "count" if k == 12 else "table") for k in words))
            elif name in _HOLDING:
                walk(at + 8, at + size)
            at += size

    walk(0, len(data))
    return layout


_EBML_HOLDING = {0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675, 0xA0, 0x1C53BB6B, 0xBB,
                 0xB7, 0x114D9B74, 0x4DBB}  # fmt: skip
_EBML_FIELDS = {
    0xD7: "id", 0x73C5: "id", 0x83: "id", 0x2AD7B1: "time scale", 0x4489: "duration", 0xB0: "dimension",
    0xBA: "dimension", 0x54B0: "dimension", 0x54BA: "dimension", 0xB5: "rate", 0x9F: "channels", 0x6264: "channels",
    0xE7: "time", 0xB3: "time",
    0xF1: "index", 0xF7: "id", 0x53AC: "index", 0x23E383: "duration", 0x9B: "duration", 0x56AA: "time", 0x56BB: "time",
    0x42F7: "version", 0x4282: "id", 0x86: "codec", 0x9C: "lacing", 0xFB: "time",
}  # fmt: skip


def ebml(data: bytes) -> Layout:
    """Matroska and WebM."""
    layout = Layout()

    def length(at: int) -> int:
        return 9 - data[at].bit_length() if at < len(data) and data[at] else 9

    def walk(at: int, end: int) -> None:
        while at < end:
            long_id, long_size = length(at), length(at + length(at))
            body = at + long_id + long_size
            if long_id > 4 or long_size > 8 or body > end:
                return
            name = int.from_bytes(data[at : at + long_id])
            said = int.from_bytes(data[at + long_id : body]) & ((1 << 7 * long_size) - 1)
            close = end if said == (1 << 7 * long_size) - 1 else min(end, body + said)
            layout.add(at, (0, long_id, "id"), (long_id, long_size, "size"))
            layout.chunks.append((at, close))
            if name in _EBML_HOLDING:
                walk(body, close)
            elif name in _EBML_FIELDS and 0 < close - body <= 8:
                layout.add(body, (0, close - body, _EBML_FIELDS[name]))
            elif name in (0xA3, 0xA1) and close - body > 5:  # a block: track, time, flags, what laces frames together
                layout.add(body, (0, 1, "id"), (1, 2, "time"), (3, 1, "lacing"), (4, 1, "lacing"))
            at = close

    walk(0, len(data))
    return layout


_RIFF_FIELDS: dict[bytes, tuple[tuple[int, int, str], ...]] = {
    b"fmt ": ((8, 2, "codec"), (10, 2, "channels"), (12, 4, "rate"), (16, 4, "rate"), (20, 2, "size"), (22, 2, "size")),
    b"avih": ((8, 4, "duration"), (20, 4, "flags"), (24, 4, "count"), (32, 4, "count"), (40, 4, "dimension"),
              (44, 4, "dimension")),
    b"strh": ((12, 4, "codec"), (28, 4, "time scale"), (32, 4, "rate"), (36, 4, "time"), (40, 4, "duration"),
              (52, 4, "size")),
    b"strf": ((8, 4, "size"), (12, 4, "dimension"), (16, 4, "dimension"), (22, 2, "size"), (24, 4, "codec")),
    b"VP8X": ((8, 4, "flags"), (12, 3, "dimension"), (15, 3, "dimension")),
    b"VP8 ": ((14, 2, "dimension"), (16, 2, "dimension")),
    b"idx1": tuple((8 + 4 * k, 4, ("id", "flags", "index", "size")[k % 4]) for k in range(16)),
    b"JUNK": ((8, 4, "index"), (12, 4, "count")),
}  # fmt: skip


def riff(data: bytes) -> Layout:
    """AVI, WAV, WebP."""
    layout = Layout()

    def walk(at: int, end: int) -> None:
        while at + 8 <= end:
            name, size = struct.unpack("<4sI", data[at : at + 8])
            close = min(end, at + 8 + size + size % 2)
            layout.add(at, (0, 4, "id"))
            layout.add(at, (4, 4, "size"), *_RIFF_FIELDS.get(name, ()), little=True)
            layout.chunks.append((at, close))
            if name in (b"RIFF", b"LIST"):
                walk(at + 12, close)
            at = close

    walk(0, len(data))
    return layout


def flv(data: bytes) -> Layout:
    """FLV: tags of 11 bytes and more."""
    layout, at = Layout(), 13
    layout.add(0, (3, 1, "version"), (4, 1, "flags"), (5, 4, "size"))
    while at + 11 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4])
        layout.add(at, (0, 1, "id"), (1, 3, "size"), (4, 3, "time"), (7, 1, "time"), (8, 3, "id"), (11, 1, "codec"))
        layout.add(at + 11 + size, (0, 4, "size"))
        layout.chunks.append((at, at + 15 + size))
        if data[at] == 18:  # what onMetaData says, as doubles after a marker
            layout.fields += [Field(m.end(), 8, "rate") for m in re.finditer(b"\x00", data[at : at + 11 + size])][:20]
        at += 15 + size
    return layout


def ts(data: bytes) -> Layout:
    """MPEG-TS, and M2TS with four bytes before each packet."""
    layout = Layout()
    lead = 4 if data[4] == 0x47 and data[0] != 0x47 else 0
    for at in range(lead, len(data) - 187, 188 + lead):
        layout.chunks.append((at - lead, at + 188))
        layout.add(at, (0, 1, "id"), (1, 2, "id"), (3, 1, "flags"))
        adapted = data[at + 3] & 0x20
        body = at + 4 + (1 + data[at + 4] if adapted else 0)
        if adapted:
            layout.add(at, (4, 1, "size"), (5, 1, "flags"), (6, 4, "time"))
        if data[at + 1] & 0x40 and body < at + 170:
            if data[body : body + 3] == b"\0\0\1":
                layout.add(
                    body, (3, 1, "id"), (4, 2, "size"), (7, 1, "flags"), (8, 1, "size"), (9, 5, "time"), (14, 5, "time")
                )
            else:  # a table: of programmes, of streams
                layout.add(
                    body, (2, 2, "size"), (4, 2, "id"), (9, 2, "id"), (11, 2, "id"), (13, 1, "codec"), (14, 2, "id")
                )
    return layout


def ps(data: bytes) -> Layout:
    """MPEG program streams: packs, and packets in them."""
    layout = Layout()
    starts = [m.start() for m in re.finditer(b"\0\0\1[\xba-\xff]", data)]
    for at, close in zip(starts, [*starts[1:], len(data)], strict=True):
        layout.chunks.append((at, close))
        if data[at + 3] == 0xBA:
            layout.add(at, (4, 5, "time"), (9, 3, "rate"))
        else:
            layout.add(at, (3, 1, "id"), (4, 2, "size"), (6, 1, "flags"), (8, 1, "size"), (9, 5, "time"))
    layout.fields += [  # sequence headers of the picture
        Field(m.end() + at, size, kind)
        for m in re.finditer(b"\0\0\1\xb3", data)
        for at, size, kind in ((0, 3, "dimension"), (3, 1, "rate"))
    ][:20]
    return layout


def ogg(data: bytes) -> Layout:
    """Ogg: pages with a table of lacing."""
    layout, at = Layout(), data.find(b"OggS")
    while at >= 0:
        segments = data[at + 26]
        body = at + 27 + segments
        close = body + sum(data[at + 27 : body])
        layout.add(at, (4, 1, "version"), (5, 1, "flags"), (26, 1, "count"))
        layout.add(at, (6, 8, "time"), (14, 4, "id"), (18, 4, "count"), (22, 4, "checksum"), little=True)
        layout.add(at, *((27 + k, 1, "lacing") for k in range(min(segments, 6))))
        if data[at + 5] & 2:  # the stream's first page: its codec's header
            layout.add(body, (8, 1, "version"), (9, 1, "channels"))
            layout.add(body, (10, 2, "time"), (12, 4, "rate"), (16, 2, "rate"), little=True)
            layout.add(body, *((k, 2, "dimension") for k in range(8, 24, 2)))
        layout.chunks.append((at, close))
        at = data.find(b"OggS", close)
    return layout


def w64(data: bytes) -> Layout:
    """W64: chunks with a GUID and a size of 64 bits."""
    layout, at = Layout(), 40
    layout.add(16, (0, 8, "size"), little=True)
    while at + 24 <= len(data):
        size = int.from_bytes(data[at + 16 : at + 24], "little")
        layout.add(at, (0, 8, "id"))
        layout.add(at, (16, 8, "size"), little=True)
        if data[at : at + 4] == b"fmt ":
            layout.add(
                at + 24,
                (0, 2, "codec"),
                (2, 2, "channels"),
                (4, 4, "rate"),
                (12, 2, "size"),
                (14, 2, "size"),
                little=True,
            )
        layout.chunks.append((at, min(len(data), at + size)))
        at += max(24, size + -size % 8)
    return layout


_IFF_FIELDS: dict[bytes, tuple[tuple[int, int, str], ...]] = {
    b"COMM": ((8, 2, "channels"), (10, 4, "count"), (14, 2, "size"), (16, 2, "rate"), (18, 8, "rate")),
    b"SSND": ((8, 4, "index"), (12, 4, "size")),
    b"desc": (
        (12, 8, "rate"),
        (20, 4, "codec"),
        (28, 4, "size"),
        (32, 4, "size"),
        (36, 4, "channels"),
        (40, 4, "size"),
    ),
    b"pakt": ((12, 8, "count"), (20, 8, "count")),
}


def _chunks(data: bytes, at: int, wide: int) -> Layout:
    layout = Layout()
    while at + 4 + wide <= len(data):
        size = int.from_bytes(data[at + 4 : at + 4 + wide])
        layout.add(at, (0, 4, "id"), (4, wide, "size"), *_IFF_FIELDS.get(data[at : at + 4], ()))
        close = min(len(data), at + 4 + wide + size)
        layout.chunks.append((at, close))
        at = close + (size % 2 if wide == 4 else 0)
    return layout


def iff(data: bytes) -> Layout:
    """AIFF."""
    layout = _chunks(data, 12, 4)
    layout.add(0, (4, 4, "size"), (8, 4, "id"))
    return layout


def caf(data: bytes) -> Layout:
    """CAF."""
    return _chunks(data, 8, 8)


_PNG_FIELDS: dict[bytes, tuple[tuple[int, int, str], ...]] = {
    b"IHDR": ((8, 4, "dimension"), (12, 4, "dimension"), (16, 1, "size"), (17, 1, "codec")),
    b"acTL": ((8, 4, "count"), (12, 4, "count")),
    b"fcTL": ((8, 4, "count"), (12, 4, "dimension"), (16, 4, "dimension"), (20, 4, "index"), (24, 4, "index"),
              (28, 2, "time"), (30, 2, "time"), (32, 1, "flags"), (33, 1, "flags")),
    b"fdAT": ((8, 4, "count"),),
}  # fmt: skip


def png(data: bytes) -> Layout:
    """APNG."""
    layout, at = Layout(), 8
    while at + 12 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        layout.add(at, (0, 4, "size"), (4, 4, "id"), *_PNG_FIELDS.get(name, ()), (8 + size, 4, "checksum"))
        layout.chunks.append((at, at + 12 + size))
        at += 12 + size
    return layout


def flac(data: bytes) -> Layout:
    """FLAC: blocks of metadata, then frames."""
    layout, at, last = Layout(), 4, False
    while not last and at + 4 <= len(data):
        last, size = bool(data[at] & 0x80), int.from_bytes(data[at + 1 : at + 4])
        layout.add(at, (0, 1, "id"), (1, 3, "size"))
        if data[at] & 0x7F == 0:
            layout.add(at + 4, (0, 2, "size"), (2, 2, "size"), (4, 3, "size"), (10, 3, "rate"), (12, 2, "channels"),
                       (13, 5, "duration"))  # fmt: skip
        layout.chunks.append((at, at + 4 + size))
        at += 4 + size
    return _marked(data, layout, at, b"\xff[\xf8\xf9]", ((2, 1, "rate"), (3, 1, "channels"), (4, 1, "count")))


def adts(data: bytes) -> Layout:
    """AAC in ADTS frames."""
    return _marked(
        data, Layout(), 0, b"\xff[\xf0\xf1\xf9]", ((1, 1, "version"), (2, 2, "rate"), (3, 3, "size"), (6, 1, "count"))
    )


def _marked(data: bytes, layout: Layout, start: int, mark: bytes, fields: tuple[tuple[int, int, str], ...]) -> Layout:
    """Frames that begin with a mark."""
    starts = [m.start() + start for m in re.finditer(mark, data[start:], re.DOTALL)]
    for at, close in zip(starts, [*starts[1:], len(data)], strict=True):
        layout.add(at, *fields)
        layout.chunks.append((at, close))
    return layout


def ivf(data: bytes) -> Layout:
    """IVF."""
    layout, at = Layout(), 32
    layout.add(0, (4, 2, "version"), (6, 2, "size"), (12, 2, "dimension"), (14, 2, "dimension"), (16, 4, "rate"),
               (20, 4, "time scale"), (24, 4, "count"), little=True)  # fmt: skip
    layout.add(0, (8, 4, "codec"))
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        layout.add(at, (0, 4, "size"), (4, 8, "time"), little=True)
        layout.chunks.append((at, at + 12 + size))
        at += 12 + size
    return layout


def gif(data: bytes) -> Layout:
    """GIF: the screen, and each picture's control block."""
    layout = Layout()
    layout.add(0, (3, 3, "version"), (10, 1, "flags"), (11, 1, "index"))
    layout.add(0, (6, 2, "dimension"), (8, 2, "dimension"), little=True)
    starts = [m.start() for m in re.finditer(b"\x21\xf9\x04", data)]
    for at, close in zip(starts, [*starts[1:], len(data)], strict=True):
        layout.chunks.append((at, close))
        layout.add(at, (2, 1, "size"), (3, 1, "flags"), (17, 1, "flags"), (18, 1, "size"))
        layout.add(at, (4, 2, "time"), *((9 + 2 * k, 2, "dimension") for k in range(4)), little=True)
    return layout


def asf(data: bytes) -> Layout:
    """ASF: objects with a GUID and a size, then packets of one length."""
    layout = Layout()

    def walk(at: int, end: int, depth: int) -> None:
        while at + 24 <= end:
            size = int.from_bytes(data[at + 16 : at + 24], "little")
            if not 24 <= size <= end - at:
                return
            layout.add(at, (0, 4, "id"))
            layout.add(at, (16, 8, "size"), little=True)
            layout.add(at, *((24 + 4 * k, 4, "table") for k in range(min(20, (size - 24) // 4))), little=True)
            layout.chunks.append((at, at + size))
            if depth == 0:
                walk(at + 30, at + size, 1)
            at += size

    walk(0, len(data), 0)
    starts = [m.start() for m in re.finditer(b"\x82\0\0", data)]
    for at, close in zip(starts, [*starts[1:], len(data)], strict=True):
        layout.chunks.append((at, close))
        layout.add(at, *((3 + k, 1, "flags") for k in range(2)), (17, 1, "id"))
        layout.add(
            at,
            (5, 2, "size"),
            (7, 4, "time"),
            (11, 2, "duration"),
            (18, 4, "index"),
            (23, 4, "size"),
            (27, 4, "time"),
            little=True,
        )
    return layout


def klv(data: bytes) -> Layout:
    """MXF: keys of 16 bytes, a length, and sets of tags in them."""
    layout, at = Layout(), 0
    while at + 17 <= len(data):
        wide = data[at + 16] & 0x7F if data[at + 16] & 0x80 else 0
        body = at + 17 + wide
        size = int.from_bytes(data[at + 17 : body]) if wide else data[at + 16]
        layout.add(at, (4, 4, "id"), (12, 4, "id"), (16, 1 + wide, "size"))
        layout.chunks.append((at, min(len(data), body + size)))
        if data[at + 4 : at + 6] == b"\x02\x53":
            tag = body
            while tag + 4 <= body + size:
                length = int.from_bytes(data[tag + 2 : tag + 4])
                layout.add(tag, (0, 2, "id"), (2, 2, "size"), *([(4, min(8, length), "table")] if length else []))
                tag += 4 + length
        elif size < 512:
            layout.add(body, *((k, 4, "index") for k in range(0, min(64, size - 3), 4)))
        at = body + size
    return layout


def dif(data: bytes) -> Layout:
    """DV: blocks of 80 bytes; 12,000 make a sequence's ten."""
    layout = Layout()
    for at in range(0, len(data) - 79, 80):
        if at % 12_000 < 480:
            layout.add(at, (0, 1, "id"), (1, 2, "index"), (3, 1, "flags"), (4, 4, "table"))
    layout.chunks = [(at, at + 12_000) for at in range(0, len(data) - 11_999, 12_000)]
    return layout


def text(data: bytes) -> Layout:
    """YUV4MPEG: numbers in a line of text."""
    line = data.index(b"\n")
    numbers = [Field(m.start(), m.end() - m.start(), "text") for m in re.finditer(rb"\d+", data[:line])]
    starts = [m.start() for m in re.finditer(b"FRAME\n", data)]
    return Layout(numbers, list(zip(starts, [*starts[1:], len(data)], strict=True)))


_HEADER_WORDS = 64
_PIECES = 16


def words(data: bytes) -> Layout:
    """Any other: its first bytes as numbers of all widths, and as many pieces of one length."""
    layout = Layout()
    for at in range(0, min(_HEADER_WORDS, len(data) - 8), 2):
        layout.add(at, (0, 1, "byte"), (0, 2, "word"), (0, 4, "word"))
        layout.add(at, (0, 4, "word"), little=True)
    step = max(1, len(data) // _PIECES)
    layout.chunks = [(at, min(len(data), at + step)) for at in range(0, len(data), step)]
    return layout


PARSERS = {parser.__name__: parser for parser in (
    boxes, ebml, riff, flv, ts, ps, ogg, w64, iff, caf, png, flac, adts, ivf, gif, asf, klv, dif, text, words,
)}  # fmt: skip
