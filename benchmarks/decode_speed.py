"""How many seconds of media one core decodes, samples, and turns into what the encoders take, in a second.

    python -m benchmarks.decode_speed CLIP…

Seconds are of the CPU, all threads together, so that other work on the machine does not count; the smallest of three.
"""

import argparse
import time
from pathlib import Path

from omniqa.media.clip import sample
from omniqa.media.mel import log_mel
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import STANDARD

RUNS = 3


def cpu_seconds(path: Path, sampling: ClipOptions) -> tuple[float, float, int]:
    """CPU seconds of decoding and the log-mel; seconds of the clip; frames taken."""
    before = time.process_time()
    clip = sample(path, sampling)
    if len(clip.waveform):
        log_mel(clip.waveform)
    return time.process_time() - before, float(clip.end - clip.start), len(clip.frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--max-frames", type=int, default=128)
    given = parser.parse_args()
    sampling = ClipOptions(max_frames=given.max_frames).within(STANDARD.pixel_bounds)
    cpu_seconds(given.clips[0], sampling)  # what is imported and built on the way is not counted
    print("| clip | seconds | frames | CPU s | seconds of clip a CPU second |\n|---|---:|---:|---:|---:|")
    for path in given.clips:
        spent, seconds, frames = min(cpu_seconds(path, sampling) for _ in range(RUNS))
        print(f"| {path.name} | {seconds:.1f} | {frames} | {spent:.2f} | {seconds / spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
