"""What it costs to take frames that are far apart: decoding everything, passing over what none needs, and seeking.

    python -m benchmarks.seeking [--seconds 40] [--codec libx264 …] [--gop 12 48 250]
    python -m benchmarks.seeking --break-even [--seconds 40] [--codec libx264 …] [--gop 4 8 12 16 24 32]

Makes clips of a moving texture, 640x360 at 25 frames a second, in each codec that PyAV can encode here and with each
distance between keyframes, and takes frames at several spacings. Seconds are of the CPU, all threads together, the
smallest of three, with nothing resized. Columns: every frame is decoded; frames that no other refers to are passed
over; whole groups are too; the file is sought in as well (at any distance, not only where that is worth while).
--break-even takes the first frame of every group, so that the rest of it is decoded or dropped: from how many frames on
that is worth emptying the decoder and starting it anew. There the time that passes counts, threads and all.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import av
import numpy as np

from omniqa.media import seeking, segments
from omniqa.media.access import DEFAULT_ACCESS
from omniqa.media.container import Damage, timed_frames

RUNS = 3
GOPS, SHORT_GOPS = [12, 48, 250], [4, 8, 12, 16, 24, 32]
RATE = 25
SPACINGS = [Fraction(text) for text in ("0.5", "2", "5", "10")]
CODECS = {
    "libx264": {"preset": "veryfast", "bf": "3"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    "mpeg4": {"bf": "2", "b": "2M"},
}
_WHOLE_GROUPS = {(seeking, "_FEW_PACKETS"): 10**9, (seeking, "INDEXED"): frozenset()}
WAYS: dict[str, dict[tuple[ModuleType, str], object]] = {
    "all": _WHOLE_GROUPS | {(segments, "_MARKED"): frozenset()},
    "non-reference frames passed over": _WHOLE_GROUPS,
    "groups, too": {(seeking, "INDEXED"): frozenset()},
    "sought": {(seeking, "_NEAR_BYTES"): 0},
}
HEADS = ("spacing, s", *WAYS, "all / cheapest")
BREAK_EVEN_HEADS = ("decoded, s", "dropped, s", "decoded / dropped")


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
def settings(changes: dict[tuple[ModuleType, str], object]) -> Iterator[None]:
    with ExitStack() as stack:
        for (module, name), value in changes.items():
            stack.enter_context(patch.object(module, name, value))
        yield


def seconds_for(path: Path, times: tuple[Fraction, ...], clock: Callable[[], float]) -> float:
    """The smallest of a few, by the clock."""
    spent = []
    for _ in range(RUNS):
        before = clock()
        with closing(seeking.frames_for(path, times, Damage(), DEFAULT_ACCESS)) as frames:
            for _ in frames:
                pass
        spent.append(clock() - before)
    return min(spent)


def start_decoder(path: Path) -> None:
    """The first decoder of a codec takes longer than others."""
    with closing(timed_frames(path, "video", Fraction(0), Damage())) as frames:
        next(frames)


def rows(path: Path, label: str, seconds: int) -> Iterator[str]:
    """A row for each spacing; the cheapest way is set in bold."""
    start_decoder(path)
    for spacing in (spacing for spacing in SPACINGS if spacing < seconds):
        times = tuple(k * spacing for k in range(int(seconds / spacing)))
        spent = []
        for changes in WAYS.values():
            with settings(changes):
                spent.append(seconds_for(path, times, time.process_time))
        cells = [f"**{s:.3f}**" if s == min(spent) else f"{s:.3f}" for s in spent]
        yield f"| {label} | {float(spacing):g} | {' | '.join(cells)} | {spent[0] / min(spent):.1f} |"


def break_even(path: Path, label: str, gop: int, seconds: int) -> str:
    """A row: all but the first frame of each group decoded, and dropped."""
    start_decoder(path)
    spacing = Fraction(gop, RATE)
    times = tuple(k * spacing for k in range(int(seconds / spacing)))
    spent = []
    for few in (10**9, 0):
        with settings(_WHOLE_GROUPS | {(seeking, "_FEW_PACKETS"): few}):
            spent.append(seconds_for(path, times, time.perf_counter))
    decoded, dropped = spent
    return f"| {label} | {decoded:.3f} | {dropped:.3f} | {decoded / dropped:.2f} |"


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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=40, help="length of the clips")
    parser.add_argument("--codec", nargs="+", default=list(CODECS), choices=CODECS)
    parser.add_argument("--gop", type=int, nargs="+", help="frames from one keyframe to the next")
    parser.add_argument("--break-even", action="store_true", help="how long a group must be to be worth dropping")
    given = parser.parse_args(arguments)
    heads = BREAK_EVEN_HEADS if given.break_even else HEADS
    print(f"| codec, frames from keyframe to keyframe | {' | '.join(heads)} |")
    print("|---" + "|---:" * len(heads) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for codec in encoders(given.codec):
            for gop in given.gop or (SHORT_GOPS if given.break_even else GOPS):
                path, label = Path(folder) / f"{codec}-{gop}.mp4", f"{codec}, {gop}"
                make(path, codec, gop, given.seconds)
                if given.break_even:
                    print(break_even(path, label, gop, given.seconds), flush=True)
                    continue
                for row in rows(path, label, given.seconds):
                    print(row, flush=True)


if __name__ == "__main__":
    main()
