"""How early choices inside the vision encoder differ from TTM's after it, on clips of nano's test set.

    python -m benchmarks.early_choice nano --clips 100 --retention 0.3 --retention 0.2

For each block: the share of the tokens chosen there that TTM keeps, too, of those that a choice is made of (the first
grid of each group stays whole anyway), what choosing at random gives, and how far the embeddings of kept tokens are
from those of the whole encoder, as a share of the whole clip's spread about its mean.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import omniqa
from benchmarks.reuse import relative_error
from omniqa.eval.nano import NanoClips
from omniqa.media.clip import Clip
from omniqa.pipeline.engine import OmniQA
from omniqa.pruning import registry
from omniqa.pruning.ttm import GROUP


@dataclass(frozen=True)
class Early:
    """A clip's early choice beside TTM's. agreed, chance: shares of the tokens chosen; error: see relative_error."""

    agreed: float
    chance: float
    error: float


def compare(qa: OmniQA, clip: Clip, retention: float, block: int) -> Early:
    """Encode a clip with the choice before `block`, and whole, and choose by TTM then."""
    whole = qa.encode(clip)
    early = qa.encode(clip, method=registry.create("omnidrop", retention, vision_block=block))
    assert early.rule is not None
    assert early.keep is not None
    grids, tokens = whole.shape.grids, whole.shape.tokens_per_grid
    late = early.rule.keep(whole.video.view(grids, tokens, -1))
    chosen = early.keep.view(grids, tokens)
    followers = [grid for grid in range(grids) if grid % GROUP]
    both = (chosen & late)[followers].sum()
    error = relative_error(early.video, whole.video[early.keep], of=whole.video)
    return Early(float(both / chosen[followers].sum()), float(late[followers].float().mean()), error)


def rows(qa: OmniQA, clips: list[Clip], retentions: list[float]) -> Iterator[str]:
    """A table's rows: means over the clips."""
    for retention in retentions:
        for block in reversed(range(qa.model.vision_depth)):
            found = Tensor([[one.agreed, one.chance, one.error] for one in _each(qa, clips, retention, block)])
            agreed, chance, error = found.mean(0).tolist()
            yield f"| {retention:g} | {block} | {agreed:.1%} | {chance:.1%} | {error:.3f} |"


def _each(qa: OmniQA, clips: list[Clip], retention: float, block: int) -> Iterator[Early]:
    for clip in clips:
        yield compare(qa, clip, retention, block)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="nano, a folder or a hub id")
    parser.add_argument("--clips", type=int, default=100, help="of nano's test set, 8 s of two scenes")
    parser.add_argument("--retention", type=float, action="append", help="repeats; 0.3 and 0.2 where not given")
    given = parser.parse_args(arguments)
    qa = omniqa.load(given.model, device="cpu")
    drawn = NanoClips()
    clips = [drawn.source(str(number), qa.pixels) for number in range(given.clips)]
    print(f"{given.model}, {given.clips} clips, {torch.get_num_threads()} threads\n")
    print("| R | before block | kept by TTM, too | by chance | error |")
    print("|---:|---:|---:|---:|---:|")
    for row in rows(qa, clips, given.retention or [0.3, 0.2]):
        print(row, flush=True)


if __name__ == "__main__":
    main()
