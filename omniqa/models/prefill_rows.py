"""What enters the decoder, what goes through its layers, and what it leaves behind."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PrefillInput:
    """What enters layer 0.

    Attributes:
        embeddings: (N, d).
        positions: (3, N).
        media: where the audio and video tokens stand.
        question: (words,) places of the user's words, counted from the end of the sequence (all negative).
        index: (n_0,) which of the clip's n tokens each token of `media` is.
        modality, chunk: (n,) of all of the clip's tokens, those that did not enter included.
        max_chunk: the clip's largest chunk index.
        earlier: how many tokens of earlier turns stand between the media and the query span.
        added: (k, n, d) what is added to each of the clip's tokens before layers 0 … k-1; None adds nothing.
    """

    embeddings: Tensor
    positions: Tensor
    media: slice
    question: Tensor
    index: Tensor
    modality: Tensor
    chunk: Tensor
    max_chunk: int
    added: Tensor | None = None
    earlier: int = 0

    def to(self, device: torch.device) -> "PrefillInput":
        """With what is looked at between the layers on `device`."""
        if self.modality.device == device:
            return self
        parts = {name: getattr(self, name).to(device) for name in ("question", "modality", "chunk")}
        return replace(self, **parts)


@dataclass(frozen=True)
class PrefillOutput:
    """What the prefill leaves behind, beside the KV cache.

    logits: (vocabulary,) float32, of the answer's first token.
    asked: (L - 1, n) float32, the attention that the prompt's last row gave each of the clip's tokens, averaged over
        heads, in each layer but the last; 0 where a layer did not compute the token.
    unasked: the same of the first row behind the media, which does not see the question.
    alive: per layer, (n_l,) which of the clip's n tokens it computed.
    cached: per layer, which of these tokens its cache still holds: all, unless the method prunes caches.
    scores: per layer, (n_l,) float32 S_i as the method counts it; None where it was not needed, as in the last layer.
    """

    logits: Tensor
    asked: Tensor
    unasked: Tensor
    alive: list[Tensor]
    cached: list[Tensor]
    scores: list[Tensor | None]

    @property
    def surplus(self) -> Tensor:
        """(n,) float32: by how much `asked` exceeds `unasked`, averaged over the layers."""
        return (self.asked - self.unasked).mean(0)


Rotary = tuple[Tensor, Tensor]


@dataclass
class Rows:
    """The prompt on its way through the layers.

    Attributes:
        x: (N, d).
        rotary: cosine and sine, each (N, 1, D).
        media: where the audio and video tokens stand.
        index: (n_l,) which of the clip's tokens each of them is.
        has_media: False while `x` is the text behind the media alone.
    """

    x: Tensor
    rotary: Rotary
    media: slice
    index: Tensor
    has_media: bool = True

    def to(self, device: torch.device) -> None:
        """Go to the device of the next layer, if it is another one."""
        self.x, self.index = self.x.to(device), self.index.to(device)
        self.rotary = self.rotary[0].to(device), self.rotary[1].to(device)

    def keep(self, kept: Tensor) -> Tensor:
        """Keep the media tokens at `kept` and all text; returns which rows (M,) of the sequence these were."""
        rows = kept_rows(len(self.x), self.media, kept)
        self.x, self.rotary = self.x[rows], (self.rotary[0][rows], self.rotary[1][rows])
        self.index, self.media = self.index[kept], slice(self.media.start, self.media.start + len(kept))
        return rows


def kept_rows(length: int, media: slice, kept: Tensor) -> Tensor:
    """(M,) long: the rows, of a sequence of so many, that are text, or a media token at one of the places `kept`."""
    rows = torch.arange(length, device=kept.device)
    return torch.cat([rows[: media.start], media.start + kept, rows[media.stop :]])
