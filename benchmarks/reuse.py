"""What --reuse-static saves in the vision encoder, and how far its embeddings are from exact ones, on given clips.

    python -m benchmarks.reuse nano CLIP [CLIP ...] --threshold 2 --threshold 4
    python -m benchmarks.reuse 3b-random CLIP --threshold 4 --runs 3

For each clip and threshold, in turn in one process: the share of tokens that were taken from an earlier grid, the
vision encoder's seconds (medians) and how many times shorter they are, and the error of the embeddings: the root mean
square of the difference from exact ones, over the root mean square of exact ones around their mean. Frames are decoded
before the clock starts. What it costs in answers tells `omniqa eval ... --reuse-static LEVELS` on your own questions.

Prints a Markdown table.
"""

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor

import omniqa
from omniqa.media.sampling import ClipOptions
from omniqa.pipeline.encode import ClipEncoder
from omniqa.pipeline.encoded_clip import EncodedClip
from omniqa.pipeline.engine import OmniQA

THRESHOLDS = [0.0, 1.0, 2.0, 4.0, 8.0]  # levels of 255


def relative_error(video: Tensor, exact: Tensor, of: Tensor | None = None) -> float:
    """How far a clip's embeddings are off, in units of how far they are apart from each other.

    video, exact: both (n, d). of: (m, d), what the spread is taken of; `exact` where it is None.
    """
    video, exact, of = video.double(), exact.double(), (exact if of is None else of).double()
    return float((video - exact).square().mean().sqrt() / (of - of.mean(0)).square().mean().sqrt())


def measure(qa: OmniQA, clip: Path, sampling: ClipOptions, thresholds: list[float], runs: int) -> list[str]:
    """A clip's rows of the table, the exact one first."""
    settings = [None, *thresholds]
    encoders = [ClipEncoder(qa.model, qa.attention, threshold, cache=None) for threshold in settings]
    ready = encoders[0].preparer.prepare(clip, sampling)
    seconds: list[list[float]] = [[] for _ in settings]
    encoded: list[EncodedClip] = []
    for _ in range(runs):
        encoded = [encoder.encode(ready) for encoder in encoders]
        for taken, video in zip(seconds, encoded, strict=True):
            taken.append(video.timing_s["vision_encoder"])
    exact, medians = encoded[0].video, [statistics.median(taken) for taken in seconds]
    return [
        f"| {clip.name} | {'off' if threshold is None else f'{threshold:g}'} | {video.summary.tokens_reused:.1%} "
        f"| {median:.2f} | {medians[0] / median:.2f} | {relative_error(video.video, exact):.3f} |"
        for threshold, video, median in zip(settings, encoded, medians, strict=True)
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="nano, a folder or a hub id")
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--threshold", type=float, action="append", help="levels of 255; repeats")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--max-frames", type=int, default=128)
    parser.add_argument("--max-pixels", type=int)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    qa = omniqa.load(given.model, device=given.device)
    sampling = ClipOptions(fps=given.fps, max_frames=given.max_frames, max_pixels=given.max_pixels, audio=False)
    precision = str(qa.model.dtype).removeprefix("torch.")
    print(f"{given.model}, {precision}, {torch.get_num_threads()} threads, medians of {given.runs} runs\n")
    print("| clip | threshold | tokens taken | vision encoder s | times faster | error |")
    print("|---|---:|---:|---:|---:|---:|")
    for clip in given.clips:
        print("\n".join(measure(qa, clip, sampling, given.threshold or THRESHOLDS, given.runs)), flush=True)


if __name__ == "__main__":
    main()
