"""What resizing on uint8 changes against resizing in float32 (with rounding and clamping): pixels, and logits.

    python benchmarks/make_checkpoint.py small small-random
    python benchmarks/resize_effect.py small-random CLIP [CLIP …]

Logits are of the first answer token on that checkpoint, in float32, at retention 1.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import interpolate

import omniqa
import omniqa.media.video
from omniqa.media.clip import Clip, sample
from omniqa.media.sampling import ClipOptions
from omniqa.pruning import registry


def float_resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same filter on float32, rounded and clamped: uint8 (H, W, 3)."""
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float()
    sized = interpolate(pixels, size, mode="bicubic", antialias=True).round().clamp(0, 255).to(torch.uint8)
    return sized[0].permute(1, 2, 0).numpy()


def first_logits(qa: omniqa.OmniQA, clip: Clip) -> torch.Tensor:
    return qa.prefiller.prefill(qa.encode(clip), "What is seen?", registry.create("none", 1.0)).result.logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clips", nargs="+")
    arguments = parser.parse_args()
    qa = omniqa.load(arguments.model, device="cpu", dtype="float32")
    sampling = ClipOptions(max_frames=16)
    print("| clip | mean absolute pixel difference | largest | largest logit difference | spread of logits |")
    print("|---|---:|---:|---:|---:|")
    for path in arguments.clips:
        ours = sample(path, sampling)
        resize, omniqa.media.video.resize = omniqa.media.video.resize, float_resize
        theirs = replace(ours, frames=sample(path, sampling).frames)
        omniqa.media.video.resize = resize
        pixels = np.abs(ours.frames.astype(int) - theirs.frames)
        ours_logits, their_logits = first_logits(qa, ours), first_logits(qa, theirs)
        change, spread = (ours_logits - their_logits).abs().max(), ours_logits.std()
        print(f"| {path.rsplit('/')[-1]} | {pixels.mean():.3f} | {pixels.max()} | {change:.5f} | {spread:.3f} |")


if __name__ == "__main__":
    main()
