"""What `omniqa ask` makes of files from the field, beside an ordinary clip: seconds, memory, and the result.

    python -m benchmarks.reliability

The tests' own makers write the files. One process loads nano and forks for each of them: seconds are of the CPU, and
memory is what the process takes beyond the loaded model.
"""

import json
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from omniqa.cli import app
from tests.fuzz.run import ORDINARY, QUESTION, first_answer, forked, idle_mb, prepared
from tests.media import test_clock as clocks
from tests.media.test_colour import PQ, WHITE, hdr_clip, pq
from tests.media.test_downmix import sine, sound
from tests.media.test_geometry import ANAMORPHIC, disc, write
from tests.media.test_programmes import BLUE, LARGE, RED, SMALL, broadcast, plain

DAY = 86_400
SCARCE_MB = 1  # of address space, that the last row leaves


def anamorphic(folder: Path) -> Path:
    file, codec, size, ratio, options = ANAMORPHIC["DVD, 16:9, H.264 in MPEG-TS"]
    aspect = clocks.Fraction(ratio)
    return write(folder / file, codec, disc(*size, aspect), aspect, **options)


def far(folder: Path) -> Path:
    pictures = [np.full((64, 96, 3), 20 * k, np.uint8) for k in range(12)]
    video = clocks.Video(pictures, rate=4, codec="mpeg4", tick=clocks.Fraction(1, 4), options={"g": "1", "bf": "0"})
    source = clocks.write_clip(folder / "near.mkv", video)
    return clocks.rewritten(source, folder / "a.mkv", lambda number: 60 * 365 * DAY if number >= 4 else 0)


def animated(folder: Path) -> Path:
    pictures = [Image.new("RGB", (64, 48), (50 * number, 200, 10)) for number in range(5)]
    pictures[0].save(folder / "a.webp", save_all=True, append_images=pictures[1:], duration=200)
    return folder / "a.webp"


def before_wrap(folder: Path) -> Path:
    clocks.part(folder / "a.ts", clocks.RED, 500, float(clocks.TURN) - 30)
    return folder / "a.ts"


def surround(folder: Path) -> Path:
    silence = sine(100, 0)
    return sound(folder / "a.wav", [silence, silence, sine(1000), sine(50, 0.9), silence, silence], "5.1")


def two_programmes(folder: Path) -> Path:
    return broadcast(folder, (plain(RED, *LARGE), 500, 64_000), (plain(BLUE, *SMALL), 900, 192_000))


def joined(name: str, second: float) -> Callable[[Path], Path]:
    """Two recordings, the second one's clock beginning at so many seconds."""
    return lambda folder: clocks.joined(folder / name, (clocks.RED, 500, 0), (clocks.BLUE, 900, second))


ROWS: dict[str, Callable[[Path], Path]] = {
    "ordinary": lambda folder: ORDINARY,
    "MPEG-TS that starts 30 s before its clock wraps": before_wrap,
    "MPEG-TS joined: the clock restarts": joined("a.ts", 0),
    "MPEG-TS joined: the clock leaps 20 s": joined("a.ts", 24),
    "MPEG-TS joined: the clock leaps 2 h": joined("a.ts", 7204),
    "MP4 of slides at 0, 10 and 50 s, to 60 s": lambda folder: clocks.sparse(folder / "a.mp4", (0, 10, 50), 60),
    "MPEG-TS of two programmes": two_programmes,
    "HDR (PQ) in ProRes": lambda folder: hdr_clip(folder, "ProRes", pq(203 * WHITE), PQ),
    "pixels of 64:45": anamorphic,
    "5.1, speech in the centre, rumble in the LFE": surround,
    "animated WebP": animated,
    "Matroska whose second part lies 60 years later": far,
    "IVF with gaps of 2**58 s": lambda folder: clocks.ivf(folder / "a.ivf", [2**58 * k for k in range(5)]),
    "IVF whose unit of time is longer than a day": lambda folder: clocks.ivf(folder / "a.ivf", range(5), scale=2**31),
    "FLV whose second half lies 2100 s later": joined("a.flv", 2104),
}


def asked(path: Path, folder: Path, scarce: bool = False) -> tuple[Any, str]:
    """How the command ended on a file, and what it said of it."""
    answer = folder / "answer.json"

    def work() -> int:
        os.dup2(os.open(answer, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        if scarce:
            most = psutil.Process().memory_info().vms + SCARCE_MB * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return app.run(["ask", str(path), *QUESTION, "--json"])

    outcome = forked(work)
    if outcome.code:
        return outcome, outcome.said.removeprefix("omniqa: ").replace(str(path), path.name)
    media = json.loads(answer.read_text())["media"]
    size = f"{media['width']} x {media['height']}" if media["frames"] else "no picture"
    notes = [note.partition(";")[0] for note in media["warnings"] if not note.startswith("There is no")]
    facts = f"{media['duration_s']:.4g} s; {media['frames']} frames, {size}; {media['audio_s']:.4g} s of sound."
    return outcome, " ".join([facts, *notes])


def main() -> None:
    prepared()
    first_answer(ORDINARY)
    idle = idle_mb(ORDINARY)
    print(f"The loaded model: {idle:.0f} MB.\n")
    print("| file | exit code | CPU seconds | MB beyond | what comes out |\n|---|---:|---:|---:|---|")
    scarce = f"ordinary, with {SCARCE_MB} MB of memory to take"
    for name, make in [*ROWS.items(), (scarce, ROWS["ordinary"])]:
        with tempfile.TemporaryDirectory() as folder:
            outcome, said = asked(make(Path(folder)), Path(folder), scarce=name == scarce)
        beyond = max(0, outcome.peak_mb - idle)
        print(f"| {name} | {outcome.code} | {outcome.cpu_s:.1f} | {beyond:.0f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
