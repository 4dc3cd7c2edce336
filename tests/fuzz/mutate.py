"""Changes to a container that know where its fields lie."""

import random
import struct
from collections.abc import Callable

from tests.fuzz.layouts import PARSERS, Field, Layout

_OGG = b"OggS"
_MOST_FIELDS = 3  # changed at a time
_POLYNOMIAL = 0x04C11DB7


def _values(one: Field, said: int, random: random.Random) -> int:
    """A number that a field may not expect."""
    most = (1 << 8 * one.size) - 1
    return random.choice(
        (0, 1, most, most >> 1, (most >> 1) + 1, said + 1, said - 1, 2 * said, said // 2, said << 8,
         said ^ (most & 0x101), random.randint(0, most), random.randint(0, min(most, 255)))
    ) & most  # fmt: skip


def set_fields(data: bytearray, layout: Layout, random: random.Random, kinds: str = "") -> str:
    """Give a few fields other values; `kinds` is a kind that they are of."""
    named = [one for one in layout.fields if one.kind == kinds or not kinds]
    chosen = random.sample(named, min(len(named), random.randint(1, _MOST_FIELDS)))
    for one in chosen:
        if one.kind == "text":
            data[one.at : one.at + one.size] = (
                str(random.choice((0, 1, 3, 99, 65_536, 10**10)))[: one.size].rjust(one.size, "0").encode()
            )
            continue
        order = "little" if one.little else "big"
        said = int.from_bytes(data[one.at : one.at + one.size], order)
        data[one.at : one.at + one.size] = _values(one, said, random).to_bytes(one.size, order)
    return ", ".join(f"{one.kind} at {one.at}" for one in chosen)


def set_one_kind(data: bytearray, layout: Layout, random: random.Random) -> str:
    """Give fields of one kind other values, each kind as often as another."""
    kinds = sorted({one.kind for one in layout.fields})
    return set_fields(data, layout, random, random.choice(kinds))


def truncate(data: bytearray, layout: Layout, random: random.Random) -> str:
    """Cut the file off, in a chunk or at its end."""
    at = random.choice([random.choice(layout.chunks)[1], random.randint(1, len(data) - 1)])
    del data[at:]
    return f"cut off at {at}"


def double(data: bytearray, layout: Layout, random: random.Random) -> str:
    """Write a chunk twice."""
    start, end = random.choice(layout.chunks)
    data[end:end] = data[start:end]
    return f"{start} to {end} twice"


def drop(data: bytearray, layout: Layout, random: random.Random) -> str:
    """Leave out a chunk."""
    start, end = random.choice(layout.chunks)
    del data[start:end]
    return f"without {start} to {end}"


def swap(data: bytearray, layout: Layout, random: random.Random) -> str:
    """Let two chunks that follow each other change places."""
    pairs = [(one, other) for one, other in zip(layout.chunks, layout.chunks[1:], strict=False) if one[1] <= other[0]]
    if not pairs:
        return drop(data, layout, random)
    (a, b), (c, d) = random.choice(pairs)
    data[a:d] = data[c:d] + data[b:c] + data[a:b]
    return f"{a} to {d} turned round"


def blank(data: bytearray, layout: Layout, random: random.Random) -> str:
    """Fill a span with zeros."""
    start = random.choice((random.choice(layout.chunks)[0], random.randint(0, len(data) - 1)))
    count = min(len(data) - start, random.choice((4, 64, 1024, 16_384)))
    data[start : start + count] = bytes(count)
    return f"{count} zeros at {start}"


def flip(data: bytearray, layout: Layout, random: random.Random) -> str:
    """Flip bits, most of them among the fields."""
    places = [one.at + random.randrange(one.size) for one in random.choices(layout.fields, k=random.randint(1, 8))]
    for at in places:
        data[at] ^= 1 << random.randrange(8)
    return f"bits at {', '.join(map(str, places))}"


KINDS: tuple[Callable[[bytearray, Layout, random.Random], str], ...] = (
    set_one_kind, set_one_kind, set_one_kind, set_fields, truncate, double, drop, swap, blank, flip,
)  # fmt: skip


def mutated(data: bytes, parser: str, random: random.Random) -> tuple[bytes, str]:
    """A changed copy of a file, and what was changed.

    Args:
        data: a whole file.
        parser: its parser's name in `PARSERS`.
        random: what chooses.
    """
    changed, layout = bytearray(data), PARSERS[parser](data)
    layout.fields = [one for one in layout.fields if one.at + one.size <= len(data) and one.size]
    change = random.choice(KINDS)
    said = change(changed, layout, random)
    if parser == "ogg" and random.random() < 0.8:  # else, a reader drops what was changed, and sees nothing odd
        _mend_ogg(changed)
    return bytes(changed), f"{change.__name__}: {said}"


def _mend_ogg(data: bytearray) -> None:
    """Make the checksums of Ogg's pages right again."""
    at = data.find(_OGG)
    while at >= 0 and at + 27 <= len(data):
        body = at + 27 + data[at + 26]
        close = min(len(data), body + sum(data[at + 27 : body]))
        data[at + 22 : at + 26] = bytes(4)
        data[at + 22 : at + 26] = struct.pack("<I", _checksum(data[at:close]))
        at = data.find(_OGG, max(close, at + 4))


def _table() -> list[int]:
    table = []
    for value in range(256):
        rest = value << 24
        for _ in range(8):
            rest = (rest << 1) ^ (_POLYNOMIAL if rest & 0x80000000 else 0)
        table.append(rest & 0xFFFFFFFF)
    return table


_TABLE = _table()


def _checksum(page: bytes) -> int:
    """Ogg's: CRC-32 without reflection, from 0 on."""
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ _TABLE[value >> 24 ^ byte]
    return value
