"""A transport stream of several programmes: picture and sound are of the same one."""

from itertools import zip_longest

import numpy as np
import pytest

from omniqa.media.clip import ClipOptions, sample
from tests.media.clips import Audio, Video, tone, write_clip

PACKET = 188
PAT_PID, SDT_PID = 0, 0x11
SECONDS = 3


def crc(data):
    """MPEG-2's CRC-32."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value


def association_table(programmes):
    """A packet with the table of programmes: {number: PID of its own table}."""
    entries = b"".join(number.to_bytes(2) + (0xE000 | pid).to_bytes(2) for number, pid in programmes.items())
    section = b"\x00" + (0xB000 | (len(entries) + 9)).to_bytes(2) + b"\x00\x01\xc1\x00\x00" + entries
    packet = b"\x47\x40\x00\x10\x00" + section + crc(section).to_bytes(4)
    return packet.ljust(PACKET, b"\xff")


def pid(packet):
    return (packet[1] & 0x1F) << 8 | packet[2]


def programme(folder, number, picture, hertz, bit_rate):
    """The packets of a programme: a picture of one colour, and a tone."""
    video = Video([picture] * (SECONDS * 25), options={"preset": "ultrafast"})
    audio = Audio(tone(SECONDS, hertz), codec="mp2", bit_rate=bit_rate)
    options = {"mpegts_service_id": number, "mpegts_pmt_start_pid": 0x1000 + number, "mpegts_start_pid": 256 * number}
    path = folder / f"{number}.ts"
    write_clip(path, video, audio, **{name: str(value) for name, value in options.items()})
    data = path.read_bytes()
    packets = [data[at : at + PACKET] for at in range(0, len(data), PACKET)]
    return [packet for packet in packets if pid(packet) not in (PAT_PID, SDT_PID)]


def broadcast(folder, *programmes):
    """A file of several (picture, hertz, bit rate), each a programme: their packets by turns."""
    parts = [programme(folder, number, *given) for number, given in enumerate(programmes, 1)]
    table = association_table({number: 0x1000 + number for number in range(1, len(parts) + 1)})
    most = max(map(len, parts))
    spread = [[part[k * len(part) // most : (k + 1) * len(part) // most] for k in range(most)] for part in parts]
    turns = [b"".join(packet for piece in turn for packet in piece) for turn in zip_longest(*spread, fillvalue=[])]
    path = folder / "all.ts"
    path.write_bytes(table + b"".join(turns))
    return path


def plain(colour, height, width):
    return np.full((height, width, 3), colour, np.uint8)


RED, BLUE = (220, 30, 30), (30, 30, 220)
LARGE, SMALL = (360, 640), (90, 160)


def heard(clip):
    """The pitch of the sound, in Hz."""
    second = clip.waveform[16_000:32_000]
    return int(np.argmax(np.abs(np.fft.rfft(second))))


@pytest.mark.parametrize("sizes", [(LARGE, SMALL), (SMALL, LARGE)], ids=["first", "second"])
@pytest.mark.parametrize("rates", [(64_000, 192_000), (192_000, 64_000), (64_000, 64_000)])
def test_the_programmes_own_sound_goes_with_its_picture(tmp_path, sizes, rates):
    """Whichever sound is the better one, taken by itself."""
    pictures = [plain(colour, *size) for colour, size in zip((RED, BLUE), sizes, strict=True)]
    clip = sample(broadcast(tmp_path, *zip(pictures, (500, 900), rates, strict=True)), ClipOptions())
    red, _, blue = clip.frames[2, 9, 9].astype(int)
    assert heard(clip) == pytest.approx(500 if red > blue else 900, abs=2)
    assert clip.info.duration == pytest.approx(SECONDS, abs=0.2)
    assert clip.warnings == ()


def test_a_track_asked_for_is_heard_whatever_its_programme(tmp_path):
    path = broadcast(tmp_path, (plain(RED, *LARGE), 500, 64_000), (plain(BLUE, *SMALL), 900, 64_000))
    assert [heard(sample(path, ClipOptions(audio_track=number))) for number in (1, 2)] == [
        pytest.approx(500, abs=2),
        pytest.approx(900, abs=2),
    ]
