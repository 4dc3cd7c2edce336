"""Which audio tokens stay, and what becomes of the others: dominant tokens, anchors, merging (OmniZip; methods.md)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from omniqa.pruning.ops import highest_cosine, most_similar


@dataclass(frozen=True, eq=False)
class AudioChoice:
    """The audio tokens that stay at one ρ_a, as ascending indices on the CPU.

    Attributes:
        dominant: those of the highest priority.
        anchors: those spread over the remaining ones.
        others: the rest.
    """

    dominant: Tensor
    anchors: Tensor
    others: Tensor

    @property
    def kept(self) -> Tensor:
        """Dominant tokens and anchors, ascending."""
        return torch.cat([self.dominant, self.anchors]).sort().values


def choose_audio(order: Tensor, rho_audio: float, anchors: float) -> AudioChoice:
    """The first round((1 - ρ_a)·n_A) of `order`, and of the m remaining the anchors, at positions 0, s, 2s etc.

    Args:
        order: (n_A,) long on the CPU, the audio tokens by descending priority.
        anchors: how many, as a share of n_A.
    """
    k = round((1 - rho_audio) * len(order))
    dominant, remaining = order[:k].sort().values, order[k:].sort().values
    count = min(round(anchors * len(order)), len(remaining))
    places = torch.arange(count) * max(1, len(remaining) // max(count, 1))
    is_anchor = torch.zeros(len(remaining), dtype=torch.bool).index_fill_(0, places, True)
    return AudioChoice(dominant, remaining[is_anchor], remaining[~is_anchor])


def merge_into_anchors(audio: Tensor, video: Tensor, choice: AudioChoice, g: int) -> Tensor:
    """(anchors, d) the anchors' embeddings, once others have been merged into them.

    Each other token belongs to its most similar anchor. From each anchor's members the g with the highest cosine to
    any token of `video` (no video: to the anchor) join it: (anchor + Σ w x)/2, w the softmax of those cosines. An
    anchor without members, and all for g = 0, stay as they are.
    """
    anchors = audio[choice.anchors.to(audio.device)]
    if not len(choice.anchors) or not len(choice.others) or g < 1:
        return anchors
    others = audio[choice.others.to(audio.device)]
    similarity, anchor = most_similar(others, anchors)
    if len(video):
        similarity = highest_cosine(others, video)
    # Members sorted by anchor, then by similarity, then by index; `rank` counts from 0 within each anchor.
    order = similarity.argsort(descending=True, stable=True)
    order = order[anchor[order].argsort(stable=True)]
    sizes = anchor.bincount(minlength=len(anchors))
    rank = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[anchor[order]]
    order, rank = order[rank < g], rank[rank < g]
    columns = min(g, int(sizes.max()))
    member = torch.zeros(len(anchors), columns, dtype=torch.long, device=order.device)
    weight = torch.full(member.shape, -torch.inf, device=order.device)
    member[anchor[order], rank], weight[anchor[order], rank] = order, similarity[order]
    merges = sizes > 0
    weight = weight.masked_fill(~merges[:, None], 0.0).softmax(1)
    merged = anchors.float()
    for column in range(columns):
        merged = merged + weight[:, column, None] * others[member[:, column]].float()
    return torch.where(merges[:, None], (merged / 2).to(anchors.dtype), anchors)
