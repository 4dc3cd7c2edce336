"""Drives the audio encoder: log-mel in, embeddings out, a batch of two-second windows at a time.

Every window (200 mel frames → 100 positions → 50 tokens) is encoded independently of the others, so windows batch
freely and activations stay bounded by the batch. Only the last window may be shorter.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from omniqa.model.attention import Attention, score_block
from omniqa.model.upload import upload

BATCH_WINDOWS = 32


def token_count(mel_frames: int) -> int:
    """Audio tokens that `mel_frames` frames of 10 ms become: 50 a full window."""
    return ((mel_frames + 1) // 2) // 2


@dataclass(frozen=True)
class AudioEncoding:
    """Encoded sound.

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
    def importance(self, kind: Literal["global", "window"]) -> Tensor:
        """Attention that each token gets in the encoder's last layer (OmniZip, arXiv 2511.14582): float32 (n_A,).

        softmax(QKᵀ/√D) over the whole sound without a mask ("global", quadratic, in blocks of queries) or inside
        each window ("window", linear), averaged over heads, summed over queries; then the mean of a token's positions.
        """
        q, k = self.queries.float(), self.keys.float()
        received = _received(q, k) if kind == "global" else _received_in_windows(q, k, self.window)
        return received[: 2 * len(self.embeddings)].view(-1, 2).mean(-1)


def _received(q: Tensor, k: Tensor) -> Tensor:
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
    parts += [_received(q[whole:], k[whole:])] if whole < len(q) else []
    return torch.cat(parts)


class AudioEncoder:
    """Runs transformers' Qwen2_5OmniAudioEncoder `tower` with `attention`."""

    def __init__(self, tower: Any, attention: Attention) -> None:
        self.tower = tower
        self.attention = attention
        self.heads: int = tower.config.encoder_attention_heads
        self.window: int = 2 * tower.config.n_window

    @torch.inference_mode()
    def encode(self, mel: Any, progress: Callable[[float], None] = lambda share: None) -> AudioEncoding:
        """Encode log-mel (bins, frames) float32, frames ≥ 1."""
        weight = self.tower.conv1.weight
        x = torch.from_numpy(mel)
        whole = x.shape[1] // self.window
        full, rest = x.split([whole * self.window, x.shape[1] - whole * self.window], dim=1)
        batches = list(full.view(len(x), whole, self.window).transpose(0, 1).split(BATCH_WINDOWS)) if whole else []
        batches += [rest[None]] if rest.shape[1] else []

        parts = []
        for batch in batches:
            parts.append(self._encode_windows(upload(batch, weight.device).to(weight.dtype)))
            progress(len(parts) / len(batches))
        embeddings, queries, keys = (torch.cat(part) for part in zip(*parts, strict=True))
        return AudioEncoding(embeddings, queries, keys, self.window // 2)

    def _encode_windows(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode (B, bins, frames) windows; give embeddings, and the last layer's queries and keys, all flat."""
        tower = self.tower
        x = F.gelu(tower.conv2(F.gelu(tower.conv1(mel)))).transpose(1, 2)
        x = x + tower.positional_embedding.positional_embedding[: x.shape[1]].to(x.dtype)
        for layer in tower.layers:
            q, k, v = self._project(layer.self_attn, layer.self_attn_layer_norm(x))
            x = x + layer.self_attn.out_proj(self.attention.dense(q, k, v).reshape(x.shape))
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        pairs = x[:, : x.shape[1] // 2 * 2].unflatten(1, (-1, 2))
        pooled = (pairs[:, :, 0] + pairs[:, :, 1]) / 2
        embeddings = tower.proj(tower.ln_post(pooled))
        return embeddings.flatten(0, 1), q.flatten(0, 1), k.flatten(0, 1)

    def _project(self, attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, S, H, D)."""
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in projections)
        return q, k, v
