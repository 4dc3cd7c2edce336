"""A model family unlike the published one: small, untrained, and complete, to prove that the pipeline knows none.

Patches of 16 pixels, 13 positions and 13 audio tokens a second, tokens interleaved one by one by their time, chunks of
a second, a decoder without multi-axis rotary positions, and embeddings that the vision encoder adds to its tokens
before decoder layers 0 to 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, TEXT, VIDEO, Geometry, MediaShape, PromptText, TokenLayout
from omniqa.models.decoder import Decoder, Rotary
from omniqa.models.encoded_media import AudioEncoding

CPU = torch.device("cpu")
GEOMETRY = Geometry(
    patch=16,
    spatial_merge=2,
    temporal_patch=2,
    min_pixels=4 * 32**2,
    max_pixels=20 * 32**2,
    positions_per_second=13,
    audio_tokens_per_second=13,
    chunk_seconds=1,
)
WIDTH, LAYERS, HEADS, ADDED = 64, 8, 4, 3
END, VIDEO_ID, AUDIO_ID, VOCABULARY = 256, 257, 258, 264  # below: bytes
HEAD, TAIL = list(b"user: "), list(b" assistant:")


class TinyDecoder(Decoder):
    """Rotary positions by time alone."""

    def rotary(self, x: Tensor, positions: Tensor) -> Rotary:
        cos, sin = self.model.rotary_emb(x, positions[:1])
        return cos[0, :, None], sin[0, :, None]


class TinyVision(nn.Module):
    """One linear map of a token's pixels, and one for each of the layers before which something is added."""

    def __init__(self) -> None:
        super().__init__()
        pixels = 2 * GEOMETRY.token_pixels**2 * 3
        self.main = nn.Linear(pixels, WIDTH)
        self.added = nn.ModuleList(nn.Linear(pixels, WIDTH) for _ in range(ADDED))

    def tokens(self, frames: Any) -> Tensor:
        """Pixels (grids, tokens_per_grid, ·) of uint8 frames (2·grids, H, W, 3)."""
        x = torch.from_numpy(np.ascontiguousarray(frames)).float() / 255
        side = GEOMETRY.token_pixels
        count, rows, cols = len(x) // 2, x.shape[1] // side, x.shape[2] // side
        x = x.view(count, 2, rows, side, cols, side, 3).permute(0, 2, 4, 1, 3, 5, 6)
        return x.reshape(count, rows * cols, -1)


class TinyStream:
    """Frames in, embeddings and what is added to them out."""

    def __init__(self, encoder: TinyVision) -> None:
        self._encoder, self._tokens = encoder, list[Tensor]()
        self.grids = self.grids_reused = 0
        self.tokens_reused, self.added = 0.0, None

    def push(self, frames: Any) -> None:
        self._tokens.append(self._encoder.tokens(frames))
        self.grids += len(self._tokens[-1])

    def finish(self) -> Tensor:
        pixels = torch.cat(self._tokens)
        self.added = torch.stack([layer(pixels).flatten(0, 1) for layer in self._encoder.added])
        return self._encoder.main(pixels)


class TinyAudio(nn.Module):
    """A token is the mean of its frames."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.query, self.key = (nn.Linear(128, width) for width in (WIDTH, WIDTH, WIDTH))

    def encode(self, mel: Any, progress: Any = None) -> AudioEncoding:
        count = count_tokens(mel.shape[1])
        frames = F.adaptive_avg_pool1d(torch.from_numpy(mel)[None], 2 * count)[0].T
        queries, keys = (layer(frames).unflatten(-1, (HEADS, -1)) for layer in (self.query, self.key))
        return AudioEncoding(self.main(frames.view(count, 2, -1).mean(1)), queries, keys, 26)


def count_tokens(mel_frames: int) -> int:
    return mel_frames * GEOMETRY.audio_tokens_per_second // 100


@dataclass(frozen=True)
class TinyModel:
    """Implements omniqa.models.base.Model."""

    vision: TinyVision
    audio: TinyAudio
    stack: LlamaModel
    lm_head: nn.Linear
    geometry: Geometry = GEOMETRY
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    layers: int = LAYERS
    width: int = WIDTH
    context: int = 2048
    end_tokens: frozenset[int] = frozenset([END])
    audio_form: tuple[int, int, int] = (HEADS, WIDTH // HEADS, 26)
    vision_depth: int = 0

    @property
    def encoders(self) -> tuple[nn.Module, nn.Module]:
        return self.vision, self.audio

    def vision_encoder(self, attention: Any) -> TinyVision:
        return self.vision

    def vision_stream(self, encoder: TinyVision, reuse_static: Any, rule: Any, take: Any) -> TinyStream:
        return TinyStream(encoder)

    def attended_stream(self, encoder: TinyVision) -> TinyStream:
        raise UsageError("The tiny family's vision encoder has no attention.")

    def audio_encoder(self, attention: Any) -> TinyAudio:
        return self.audio

    def decoder_stack(self, attention: Any) -> TinyDecoder:
        return TinyDecoder(self.stack, self.lm_head, attention)

    def count_audio_tokens(self, mel_frames: int) -> int:
        return count_tokens(mel_frames)

    def lay_out(self, shape: MediaShape, question: str | PromptText) -> TokenLayout:
        """Every token by its own time; of one time video first."""
        times = np.concatenate(
            [np.repeat([float(t) for t in shape.grid_times], shape.tokens_per_grid), np.arange(shape.audio_tokens) / 13]
        )
        modality = np.repeat(np.array([VIDEO, AUDIO], np.int8), [shape.video_tokens, shape.audio_tokens])
        order = np.lexsort((modality, times))
        times, modality, prompt = times[order], modality[order], PromptText.of(question)
        turns = b"".join(f"{turn.question}\n{turn.answer}\n".encode() for turn in prompt.turns)
        words = [*turns, *prompt.question.encode()]
        before, after, media = len(HEAD), len(words) + len(TAIL), len(order)
        positions = np.floor(13 * times + 1e-9).astype(np.int64)
        text = np.arange(before), before + positions.max() + 1 + np.arange(after)
        ids = np.concatenate([HEAD, np.where(modality == VIDEO, VIDEO_ID, AUDIO_ID), words, TAIL])
        around = (before, after)
        return TokenLayout(
            ids=ids.astype(np.int64),
            positions=np.tile(np.concatenate([text[0], before + positions, text[1]]), (3, 1)),
            modality=np.pad(modality, around, constant_values=TEXT).astype(np.int8),
            chunk=np.pad(times.astype(np.int64), around, constant_values=-1),
            time_s=np.pad(times, around, constant_values=np.nan),
            media=slice(before, before + media),
            question=slice(before + media + len(turns), before + media + len(words)),
            shape=shape,
            earlier=len(turns),
        )

    def decode_text(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if token < END).decode("utf-8", "replace")

    def load_aux_network(self, network: Any) -> Any:
        raise NotImplementedError("no method of this test has a network of its own")


def make_model() -> TinyModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        attn_implementation="sdpa",
    )
    parts = TinyVision(), TinyAudio(), LlamaModel(config), nn.Linear(WIDTH, VOCABULARY, bias=False)
    return TinyModel(*(part.requires_grad_(False).eval() for part in parts))
