"""What it costs to take frames that are far apart: decoding everything, passing over what none needs, and seeking.

    python -m benchmarks.seeking [--seconds 40] [--codec libx264 …] [--gop 12 48 250]

Makes clips of a moving texture, 640x360 at 25 frames a second, in each codec that PyAV can encode here and with each
distance between keyframes, and takes frames at several spacings. Seconds are of the CPU, all threads together, the
smallest of three, with nothing resized. Columns: every frame is decoded; frames that no other refers to are passed
over; whole groups are too; the file is sought in as well (at any distance, not only where that is worth while).
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np

from omniqa.media import seeking
from omniqa.media.access import DEFAULT_ACCESS
from omniqa.media.container import Damage, timed_frames

RUNS = 3
RATE = 25
SPACINGS = [Fraction(text) for text in ("0.5", "2", "5", "10")]
CODECS = {
    "libx264": {"preset": "veryfast", "bf": "3"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    "mpeg4": {"bf": "2", "b": "2M"},
}
WAYS = {
    "all": {"_MARKED": frozenset(), "_FEW_PACKETS": 10**9, "_INDEXED": frozenset()},
    "non-reference frames passed over": {"_FEW_PACKETS": 10**9, "_INDEXED": frozenset()},
    "groups, too": {"_INDEXED": frozenset()},
    "sought": {"_NEAR_BYTES": 0},
}


def make(path: Path, codec: str, gop: int, seconds: int) -> Path:
    """A clip of a texture that drifts, with noise in a corner."""
    generator = np.random.default_rng(0)
    wall = np.kron(generator.integers(0, 256, (45, 80), np.uint8), np.ones((16, 16), np.uint8))
    tick = Fraction(1, RATE) if codec == "mpeg4" else Fraction(1, 12000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=CODECS[codec] | {"g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.codec_context.time_base = tick
        for k in range(seconds * RATE):
            picture = np.zeros((540, 640), np.uint8)
            picture[:360] = np.roll(wall, (k, 2 * k), (0, 1))[:360, :640]
            picture[:64, :64] = generator.integers(0, 256, (64, 64), np.uint8)
            picture[360:] = 128
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = round(Fraction(k, RATE) / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@contextmanager
def settings(changes: dict[str, object]) -> Iterator[None]:
    with patch.multiple(seeking, **changes):
        yield


def cpu_seconds(path: Path, times: tuple[Fraction, ...]) -> float:
    before = time.process_time()
    with closing(seeking.frames_for(path, times, Damage(), DEFAULT_ACCESS)) as frames:
        for _ in frames:
            pass
    return time.process_time() - before


def rows(path: Path, label: str, seconds: int) -> Iterator[str]:
    """A row for each spacing; the cheapest way is set in bold."""
    with closing(timed_frames(path, "video", Fraction(0), Damage())) as frames:
        next(frames)  # the first decoder of a codec takes longer
    for spacing in (spacing for spacing in SPACINGS if spacing < seconds):
        times = tuple(k * spacing for k in range(int(seconds / spacing)))
        spent = []
        for changes in WAYS.values():
            with settings(changes):
                spent.append(min(cpu_seconds(path, times) for _ in range(RUNS)))
        cells = [f"**{s:.3f}**" if s == min(spent) else f"{s:.3f}" for s in spent]
        yield f"| {label} | {float(spacing):g} | {' | '.join(cells)} | {spent[0] / min(spent):.1f} |"


def encoders(names: list[str]) -> list[str]:
    """Those that there are."""
    found = []
    for name in names:
        try:
            av.Codec(name, "w")
        except av.codec.UnknownCodecError:
            continue
        found.append(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=40, help="length of the clips")
    parser.add_argument("--codec", nargs="+", default=list(CODECS), choices=CODECS)
    parser.add_argument("--gop", type=int, nargs="+", default=[12, 48, 250])
    given = parser.parse_args()
    print(f"| codec, frames from keyframe to keyframe | spacing, s | {' | '.join(WAYS)} | all / cheapest |")
    print("|---|---:" + "|---:" * len(WAYS) + "|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for codec in encoders(given.codec):
            for gop in given.gop:
                path = make(Path(folder) / f"{codec}-{gop}.mp4", codec, gop, given.seconds)
                for row in rows(path, f"{codec}, {gop}", given.seconds):
                    print(row, flush=True)


if __name__ == "__main__":
    main()
