"""Peak memory of encoding a clip for one method, whose dropped video tokens are freed, or for any.

    python -m benchmarks.encoding_memory nano CLIP --max-frames 768
    python -m benchmarks.encoding_memory nano CLIP --max-frames 768 --whole

One run a process: the peak is the process's own, from its start.
"""

import argparse

import omniqa
from omniqa.media.sampling import ClipOptions
from omniqa.pipeline.stats import peak_rss_bytes
from omniqa.pruning import registry


def main() -> None:
    """Encode once, and print what is held and what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clip")
    parser.add_argument("--max-frames", type=int, default=128)
    parser.add_argument("--max-pixels", type=int, default=112896)
    parser.add_argument("--method", default="omnidrop")
    parser.add_argument("--retention", type=float, default=0.3)
    parser.add_argument("--whole", action="store_true", help="hold all tokens")
    given = parser.parse_args()
    qa = omniqa.load(given.model, device="cpu")
    before = peak_rss_bytes()
    sampling = ClipOptions(max_frames=given.max_frames, max_pixels=given.max_pixels)
    method = None if given.whole else registry.create(given.method, given.retention)
    video = qa.encode(given.clip, sampling, method=method)
    peak = f"{peak_rss_bytes() / 1e6:.0f} MB, {before / 1e6:.0f} before"
    print(f"{video}: {len(video.video)} video tokens held; peak {peak}")


if __name__ == "__main__":
    main()
