"""Which tokens of a window SEATS keeps: by diversity before layer 0, by attention and shared budgets between layers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.methods.seats.schedule import entering
from omniqa.pruning.ops import pairwise_cosine, topk_indices

TEMPERATURE = 0.1  # of the windows' weights
_ELEMENTS = 2**24  # of distance matrices that are held at a time


def keep_of_windows(tokens: Tensor, attention: Tensor, size: int, budget: float) -> Tensor:
    """(n,) bool: the tokens of a modality that enter layer 0, chosen in each window of `size` by itself.

    Args:
        tokens: (n, d) embeddings.
        attention: (n,) what each token receives from its window.
        size: tokens of a window; the last may be shorter.
        budget: the modality's r.
    """
    whole = len(tokens) // size * size
    parts = [torch.zeros(0, dtype=torch.bool, device=tokens.device)]
    at_once = max(1, _ELEMENTS // size**2)
    windows = zip(
        tokens[:whole].unflatten(0, (-1, size)).split(at_once) if whole else (),
        attention[:whole].unflatten(0, (-1, size)).split(at_once) if whole else (),
        strict=True,
    )
    parts += [keep_most_diverse(block, received, entering(size, budget)).flatten() for block, received in windows]
    if whole < len(tokens):
        rest = tokens[None, whole:], attention[None, whole:]
        parts.append(keep_most_diverse(*rest, entering(len(tokens) - whole, budget))[0])
    return torch.cat(parts)


def keep_most_diverse(tokens: Tensor, attention: Tensor, k: int) -> Tensor:
    """(b, w) bool: k tokens of each window, one after the other the farthest from those picked before.

    The distance to token j is (1 - cos)·a_j, so that it is not symmetric. First comes the token whose second-smallest
    distance from any token, itself included, is largest.

    Args:
        tokens: (b, w, d) embeddings.
        attention: (b, w) a.
        k: at most w.
    """
    windows, size = attention.shape
    keep = torch.zeros(windows, size, dtype=torch.bool, device=tokens.device)
    if k >= size:
        return ~keep
    distance = (1 - pairwise_cosine(tokens, tokens)) * attention.float()[:, None, :]
    row = torch.arange(windows, device=tokens.device)
    pick = _first_of_highest(distance.kthvalue(2, dim=1).values)
    farness = torch.full_like(attention, torch.inf, dtype=torch.float32)
    for _ in range(k):
        keep[row, pick] = True
        farness = torch.minimum(farness, distance[row, pick]).masked_fill(keep, -torch.inf)
        pick = _first_of_highest(farness)
    return keep


def _first_of_highest(values: Tensor) -> Tensor:
    """(b,) long: of each row of (b, n) the first place of its highest value."""
    places = torch.arange(values.shape[1], device=values.device)
    return torch.where(values == values.amax(1, keepdim=True), places, values.shape[1]).amin(1)


@dataclass(frozen=True)
class Window:
    """Runs of video and of audio that are paired, as places [start, stop) in the sequence; empty if there is none."""

    video: range
    audio: range

    @property
    def size(self) -> int:
        """Its tokens."""
        return len(self.video) + len(self.audio)


def paired_windows(modality: list[int]) -> list[Window]:
    """The contiguous runs of video and of audio of a sequence, paired in order."""
    runs: dict[int, list[range]] = {VIDEO: [], AUDIO: []}
    start = 0
    for place in range(1, len(modality) + 1):
        if place == len(modality) or modality[place] != modality[start]:
            runs[modality[start]].append(range(start, place))
            start = place
    count = max(map(len, runs.values()))
    video, audio = ([*runs[kind], *[range(0)] * (count - len(runs[kind]))] for kind in (VIDEO, AUDIO))
    return [Window(*pair) for pair in zip(video, audio, strict=True)]


def keep_of_layer(scores: Tensor, modality: Tensor, k_video: int, k_audio: int) -> Tensor:
    """(m,) long: the places of the tokens kept after a layer, ascending.

    Args:
        scores: (n_l,) float32.
        modality: (n_l,).
        k_video, k_audio: the modalities' budgets, which windows share out by their mean scores.
    """
    scores = scores.cpu()
    windows = paired_windows(modality.tolist())
    if len(windows) == 1 or not k_video or not k_audio:
        places = [(modality.cpu() == kind).nonzero().flatten() for kind in (VIDEO, AUDIO)]
        kept = [_top(scores, where, k) for where, k in zip(places, (k_video, k_audio), strict=True)]
    else:
        kept = []
        for window, counts in zip(windows, share_out(scores, windows, k_video, k_audio), strict=True):
            for run, count in zip((window.video, window.audio), counts, strict=True):
                kept.append(_top(scores, torch.arange(run.start, run.stop), count))
    return torch.cat(kept).sort().values.to(modality.device)


def _top(scores: Tensor, places: Tensor, k: int) -> Tensor:
    return places[topk_indices(scores[places], k)]


def share_out(scores: Tensor, windows: list[Window], k_video: int, k_audio: int) -> list[tuple[int, int]]:
    """How many video and audio tokens each window keeps."""
    w_video = _weights(scores, [window.video for window in windows])
    w_audio = _weights(scores, [window.audio for window in windows])
    sizes = [window.size for window in windows]
    shares = [round((k_video + k_audio) * (v + a) / 2) for v, a in zip(w_video, w_audio, strict=True)]
    budgets = _balanced([min(size, max(1, b)) for b, size in zip(shares, sizes, strict=True)], sizes, k_video + k_audio)
    return [
        _split(window, budget, v * k_video, a * k_audio)
        for window, budget, v, a in zip(windows, budgets, w_video, w_audio, strict=True)
    ]


def _weights(scores: Tensor, runs: list[range]) -> list[float]:
    """A softmax over the windows of their mean scores of one modality; 0 where a window lacks it."""
    means = [scores[run.start : run.stop].mean() if len(run) else scores.new_zeros(()) for run in runs]
    weights: list[float] = (torch.stack(means) / TEMPERATURE).softmax(0).tolist()
    return weights


def _balanced(budgets: list[int], sizes: list[int], total: int) -> list[int]:
    """`budgets` brought to `total`, one by one: off the largest above 1, or onto the smallest below its size."""
    places = range(len(budgets))
    while sum(budgets) > total and max(budgets) > 1:
        budgets[max(places, key=lambda place: budgets[place])] -= 1
    while sum(budgets) < total and (free := [place for place in places if budgets[place] < sizes[place]]):
        budgets[min(free, key=lambda place: budgets[place])] += 1
    return budgets


def _split(window: Window, budget: int, video_weight: float, audio_weight: float) -> tuple[int, int]:
    """Video and audio tokens among a window's budget."""
    n_video, n_audio = len(window.video), len(window.audio)
    total = video_weight + audio_weight
    video = min(n_video, round(budget * (video_weight / total if total else 0.0)))
    audio = min(n_audio, budget - video)
    video = min(n_video, video + budget - video - audio)
    audio = min(n_audio, audio + budget - video - audio)
    if n_video and not video:
        video, audio = 1, audio - (audio > 1)
    if n_audio and not audio:
        video, audio = video - (video > 1), 1
    return video, audio
