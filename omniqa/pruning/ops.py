"""The tensor operations that pruning methods are made of (methods.md, building blocks and omnidrop).

Ties break by lower index, everywhere and in one sense: *whichever set an operation chooses* — the tokens to keep in
`topk_indices` and `TemporalMerge`, the tokens to drop in `drop_lowest` and `drop_by_tds` — of equal tokens the one
with the lower index is chosen first. Sorts are therefore stable, and every result is ascending.

Counts are Python integers known ahead and nothing reads a value back from the device, so no operation waits for it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_BLOCK_ROWS = 4096  # rows that are compared with as many others at a time
_SAME = 2**-17  # pairwise_cosine of one vector with itself, by matrix product, are this near to 1


def subsample_evenly(m: int, n0: int, device: torch.device | None = None) -> Tensor:
    """(m,) long: the evenly spread positions ⌊j·n_0/m⌋ that stay when n_0 tokens are thinned to m <= n_0."""
    if not 0 <= m <= n0:
        raise ValueError(f"{n0} tokens can't be thinned to {m}")
    return torch.arange(m, device=device) * n0 // max(m, 1)


def topk_indices(values: Tensor, k: int) -> Tensor:
    """(k,) long: the ascending indices of the k highest of `values` (n,)."""
    return values.argsort(descending=True, stable=True)[:k].sort().values


def nonzero_static(mask: Tensor, count: int) -> Tensor:
    """(count,) long: the ascending places at which `mask` (n,) bool is True, of which `count` is how many there are.

    As mask.nonzero(), whose caller waits for the device to learn that number.
    """
    return (~mask).argsort(stable=True)[:count]


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """(...) float32: the cosine of the last axes of `x` and `y`, 0 where one of them is all zero.

    Exactly 1 where both are the same, so that a still picture's tokens tie.
    """
    x, y = x.float(), y.float()
    # One root of the product, not a product of roots: sqrt(s·s) is s in floating point, sqrt(s)·sqrt(s) is not.
    norms = ((x * x).sum(-1) * (y * y).sum(-1)).sqrt()
    return torch.where(norms > 0, (x * y).sum(-1) / norms, 0.0)


def pairwise_cosine(x: Tensor, y: Tensor) -> Tensor:
    """(..., m, n) float32: the cosine of every row of `x` (..., m, d) to every row of `y` (..., n, d), as `cosine`.

    Exactly 1 where both are the same to the last digits that a matrix product is exact to.
    """
    x, y = x.float(), y.float()
    norms = ((x * x).sum(-1)[..., :, None] * (y * y).sum(-1)[..., None, :]).sqrt()
    similarity = torch.where(norms > 0, x @ y.mT / norms, 0.0)
    return similarity.masked_fill_(similarity > 1 - _SAME, 1.0)


def highest_cosine(x: Tensor, y: Tensor) -> Tensor:
    """(m,) float32: the highest cosine of each row of `x` (m, d) to any row of `y` (n, d), n > 0.

    In blocks: the (m, n) matrix never exists.
    """
    return torch.cat([_highest_of_block(_unit(rows), y) for rows in x.split(_BLOCK_ROWS)])


def _highest_of_block(x: Tensor, y: Tensor) -> Tensor:
    # Norms are divided out of the rows, not of the products: of these there are too many.
    best = torch.stack([(x @ _unit(rows).mT).amax(1) for rows in y.split(_BLOCK_ROWS)]).amax(0)
    return best.masked_fill_(best > 1 - _SAME, 1.0)


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x.float(), dim=-1)


def most_similar(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The highest cosine of each row of `x` to any row of `y`, and the first row of `y` that has it, in blocks of `x`.

    Args:
        x: (m, d).
        y: (n, d), n > 0.

    Returns:
        (m,) float32, and (m,) long.
    """
    values, indices = [], []
    places = torch.arange(len(y), device=y.device)
    for rows in x.split(_BLOCK_ROWS):
        similarity = pairwise_cosine(rows, y)
        values.append(similarity.amax(1))
        # torch.argmax promises no particular one of several.
        indices.append(torch.where(similarity == values[-1][:, None], places, len(y)).amin(1))
    return torch.cat(values), torch.cat(indices)


def lowest_of_each(cost: Tensor, k: Tensor) -> Tensor:
    """(rows, n) bool: True at the k[row] lowest of each row of `cost` (rows, n)."""
    ranked = torch.arange(cost.shape[1], device=cost.device) < k[:, None]
    return torch.zeros_like(ranked).scatter_(1, cost.argsort(dim=1, stable=True), ranked)


def keep_of_blocks(
    video: Tensor, size: int, starts: Tensor, compared: Tensor, k: Tensor, cost: Callable[[Tensor], Tensor]
) -> Tensor:
    """(n_video,) bool: the tokens kept of blocks of `size` tokens, k[b] of block b; False outside the blocks.

    Args:
        video: (n_video, d).
        starts: (blocks,) the first token of each block.
        compared: (blocks,) bool, the blocks of which the tokens stay that are least similar to those at the same place
            `size` tokens earlier, dropped ones included.
        cost: of the others the lowest stay; takes (b, size, d) embeddings to (b, size) float32.
    """
    keep = torch.zeros(len(video), dtype=torch.bool, device=video.device)
    places = torch.arange(size, device=video.device)
    for chosen, compare in ((compared, True), (~compared, False)):
        pairs = zip(starts[chosen].split(_blocks_of(size)), k[chosen].split(_blocks_of(size)), strict=True)
        for first, count in pairs:
            rows = first[:, None] + places
            block = video[rows]
            costs = cosine(block, video[rows - size]) if compare else cost(block)
            keep[rows] = lowest_of_each(costs, count)
    return keep


def _blocks_of(size: int) -> int:
    """How many blocks of `size` tokens are compared at a time."""
    return max(1, _BLOCK_ROWS // size)


def drop_lowest(scores: Tensor, k: int, droppable: Tensor | None = None) -> Tensor:
    """(n_l - k,) long: the ascending positions that stay when the k lowest of `scores` (n_l,) leave.

    Args:
        droppable: (n_l,) bool, the tokens that may leave, at least k of them; None: all.
    """
    return _droppable_first(scores, droppable)[k:].sort().values


def drop_by_tds(
    scores: Tensor, chunk: Tensor, k: int, max_chunk: int, lam: float, droppable: Tensor | None = None
) -> Tensor:
    """(n_l - k,) long: the ascending positions of the tokens kept when TDS prunes k (OmniDrop, temporal diversity).

    Candidates are the min(2k, max(k, d - 1)) lowest of the d scores that may be pruned: the highest-scored token is
    never one, unless all d are pruned. Of the candidates, the k with the lowest S_i + λ·D_i are pruned. D_i is token
    i's distance in chunks from the highest-scored token's chunk, over `max_chunk`; so tokens near it are pruned first.

    Args:
        scores: (n_l,) float32.
        chunk: (n_l,) long.
        k: how many tokens are pruned.
        max_chunk: the largest chunk index of the unpruned clip; D = 0 if it is 0.
        lam: λ.
        droppable: (n_l,) bool, the tokens that may be pruned, at least k of them; the highest score is sought among
            them. None: all.
    """
    order = _droppable_first(scores, droppable)
    candidates, rank = order[: 2 * k].sort()
    cost = scores
    if max_chunk > 0:
        best_chunk = chunk.index_select(0, _first_highest(scores, droppable))
        cost = scores + lam * ((chunk - best_chunk).abs().to(scores.dtype) / max_chunk)
    allowed = max(k, len(scores) - 1) if droppable is None else (droppable.sum() - 1).clamp(min=k)
    cost = cost[candidates].masked_fill(rank >= allowed, torch.inf)
    ranked = candidates[cost.argsort(stable=True)]
    return torch.cat([ranked[k:], order[2 * k :]]).sort().values


def _droppable_first(scores: Tensor, droppable: Tensor | None) -> Tensor:
    """(n_l,) long: positions by ascending score, those that may not leave at the end."""
    if droppable is not None:
        scores = scores.masked_fill(~droppable, torch.inf)
    return scores.argsort(stable=True)


def _first_highest(scores: Tensor, droppable: Tensor | None) -> Tensor:
    """(1,) long: the lowest position of the highest score; torch.argmax promises no particular one."""
    if droppable is not None:
        scores = scores.masked_fill(~droppable, -torch.inf)
    return scores.argsort(descending=True, stable=True)[:1]
