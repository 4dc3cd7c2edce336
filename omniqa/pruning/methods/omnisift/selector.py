"""OmniSift's learned part: a small network that tells which audio the surviving video beside it needs (methods.md)."""

import torch
from torch import Tensor, nn

WIDTH = 512
HEADS = 8
_PIECE = 1024  # audio tokens of one pair that are scored together
_BLOCK_ROWS = 4096  # audio tokens, and video tokens, that are held in float32 at a time


class AudioSelector(nn.Module):
    """Cross-attention from audio tokens to the video tokens that survive beside them, then a score of each.

    Args:
        d: the width of the embeddings. Parameters have the published checkpoint's names; they are float32. There is no
            dropout, so that training and inference give the same scores.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.v_proj = nn.Linear(d, WIDTH)
        self.v_norm = nn.LayerNorm(WIDTH)
        self.a_proj = nn.Linear(d, WIDTH)
        self.a_norm = nn.LayerNorm(WIDTH)
        self.cross_attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.post_attn_norm = nn.LayerNorm(WIDTH)
        self.score_head = nn.Sequential(nn.Linear(WIDTH, WIDTH // 2), nn.SiLU(), nn.Linear(WIDTH // 2, 1))

    def forward(self, audio: Tensor, audio_sizes: Tensor, video: Tensor, video_sizes: Tensor) -> Tensor:
        """(n_a,) float32: the score of each audio token, before the sigmoid; differentiable.

        Args:
            audio: (n_a, d), pair after pair.
            audio_sizes: (pairs,) long on the CPU, how many of them each pair has.
            video, video_sizes: likewise the video tokens that survive; a pair that has audio has at least one. In
                blocks: what is held at a time does not grow with the clip.
        """
        pair, first, size = _pieces(audio_sizes)
        if not len(pair):
            return torch.zeros(0, device=audio.device)
        seen_size = video_sizes[pair]
        seen_first = (video_sizes.cumsum(0) - video_sizes)[pair]
        at_once = max(1, _BLOCK_ROWS // int(torch.cat([size, seen_size]).max()))
        scores = []
        for block in torch.arange(len(pair)).split(at_once):
            rows, there = _rows(first[block], size[block], audio.device)
            seen, visible = _rows(seen_first[block], seen_size[block], audio.device)
            scores.append(self._score(audio[rows], video[seen], visible)[there])
        return torch.cat(scores)

    def _score(self, audio: Tensor, video: Tensor, visible: Tensor) -> Tensor:
        """(b, m) scores; audio: (b, m, d); video: (b, s, d), of which those of `visible` (b, s) are there."""
        a = self.a_norm(self.a_proj(audio.float()))
        v = self.v_norm(self.v_proj(video.float()))
        attended, _ = self.cross_attn(a, v, v, key_padding_mask=~visible, need_weights=False)
        return self.score_head(self.post_attn_norm(attended + a)).squeeze(-1)


def _pieces(sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pair, first token and size of each piece of at most _PIECE tokens that runs of `sizes` tokens are cut into."""
    count = (sizes + _PIECE - 1) // _PIECE
    pair = torch.arange(len(sizes)).repeat_interleave(count)
    before = (torch.arange(len(pair)) - (count.cumsum(0) - count)[pair]) * _PIECE  # in the same pair
    return pair, (sizes.cumsum(0) - sizes)[pair] + before, (sizes[pair] - before).clamp(max=_PIECE)


def _rows(first: Tensor, size: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """(b, longest) long: runs from `first` (b,) on, filled up with their own start; and bool: which are no filling."""
    places = torch.arange(int(size.max()))
    inside = places < size[:, None]
    return torch.where(inside, first[:, None] + places, first[:, None]).to(device), inside.to(device)
