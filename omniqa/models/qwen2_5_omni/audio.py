"""Drives the audio encoder: log-mel in, embeddings out, a batch of two-second windows at a time.

Every window (200 mel frames → 100 positions → 50 tokens) is encoded independently of the others, so windows batch
freely and activations stay bounded by the batch. Only the last window may be shorter.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniqa.models.encoded_media import AudioEncoding
from omniqa.runtime.attention import Attention
from omniqa.runtime.merged import project
from omniqa.runtime.upload import upload

BATCH_WINDOWS = 32


def token_count(mel_frames: int) -> int:
    """Audio tokens that `mel_frames` frames of 10 ms become: 50 a full window."""
    return ((mel_frames + 1) // 2) // 2


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
        q, k, v = project(x, attention.q_proj, attention.k_proj, attention.v_proj)
        return q.unflatten(-1, (self.heads, -1)), k.unflatten(-1, (self.heads, -1)), v.unflatten(-1, (self.heads, -1))
