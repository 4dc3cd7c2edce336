"""What a family's encoders make of a clip, by itself: no name, no times of a run, nothing a question left behind."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from omniqa.media.summary import MediaSummary
from omniqa.models.base import MediaShape
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import AttentionScope
from omniqa.pruning.vision_rule import VisionRule
from omniqa.runtime.attention import score_block


@dataclass(frozen=True)
class AudioEncoding:
    """Encoded sound.

    Attributes:
        embeddings: (n_A, d), in the decoder's width.
        queries, keys: (positions, heads, D) of the encoder's last layer, two positions a token; what importance is
            computed from. A lone last position belongs to no token.
        window: positions in one window.
    """

    embeddings: Tensor
    queries: Tensor
    keys: Tensor
    window: int

    def on(self, device: torch.device) -> "AudioEncoding":
        """The same with its tensors on `device`."""
        return replace(
            self, embeddings=self.embeddings.to(device), queries=self.queries.to(device), keys=self.keys.to(device)
        )

    @torch.inference_mode()
    def attention_received(self, scope: AttentionScope) -> Tensor:
        """Attention that each token gets in the encoder's last layer (OmniZip, arXiv 2511.14582): float32 (n_A,).

        softmax(QKᵀ/√D) over the whole sound without a mask ("global", quadratic, in blocks of queries) or inside
        each window ("window", linear), averaged over heads, summed over queries; then the mean of a token's positions.
        """
        q, k = self.queries.float(), self.keys.float()
        received = received_by_keys(q, k) if scope == "global" else _received_in_windows(q, k, self.window)
        return received[: 2 * len(self.embeddings)].view(-1, 2).mean(-1)


def received_by_keys(q: Tensor, k: Tensor) -> Tensor:
    """Attention each key receives from all queries, averaged over heads. q, k: (S, H, D) float32 → (S,).

    Head by head and in blocks of queries, so that a block's products are large and its probabilities few.
    """
    positions, heads, size = q.shape
    total = q.new_zeros(positions)
    rows = max(1, score_block(q.device) // positions)
    for head in range(heads):
        keys = k[:, head].T.contiguous()
        for block in (q[:, head] * size**-0.5).split(rows):
            weights = block @ keys
            weights -= weights.amax(-1, keepdim=True)
            weights.exp_()
            total += weights.sum(-1).reciprocal() @ weights
    return total / heads


def _received_in_windows(q: Tensor, k: Tensor, window: int) -> Tensor:
    """The same inside each window of `window` positions; only the last may be shorter."""
    whole = len(q) // window * window
    batch = max(1, score_block(q.device) // (q.shape[1] * window * window))
    full = (x[:whole].unflatten(0, (-1, window)).transpose(1, 2).split(batch) for x in (q, k))
    parts = [
        (queries @ keys.transpose(2, 3) * q.shape[2] ** -0.5).softmax(-1).sum(2).mean(1).flatten()
        for queries, keys in zip(*full, strict=True)
    ]
    parts += [received_by_keys(q[whole:], k[whole:])] if whole < len(q) else []
    return torch.cat(parts)


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedMedia:
    """A clip's embeddings, and what is known of it.

    start_s: where its range starts on the file's clock.
    video: (n_V, d), grid after grid; with `rule` the tokens that it kept alone. audio: None where there is no sound.
    rule: the rule by which a method pruned the video; then the clip serves only methods with an equal rule.
    keep: (n_V,) bool, the video tokens that the rule kept; None without one.
    added: (k, m, d) what is added to the tokens of `video` before decoder layers 0 to k-1; None if the family adds
        nothing.
    video_attention: (n_V,) float32, see `omniqa.pruning.contract.VisionAttention`; None if it was not asked for.
    """

    start_s: float
    shape: MediaShape
    video: Tensor
    audio: AudioEncoding | None
    summary: MediaSummary
    rule: VisionRule | None = None
    keep: Tensor | None = None
    added: Tensor | None = None
    video_attention: Tensor | None = None

    @property
    def counts(self) -> ClipTokens:
        """Its tokens before any pruning, to plan with."""
        return ClipTokens(self.shape.audio_tokens, self.shape.grids, self.shape.tokens_per_grid)
