"""Which audio and video token each decoder layer computed, and how it was scored."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omniqa.models.base import TokenLayout
from omniqa.models.decoder import PrefillOutput


@dataclass(frozen=True, eq=False)
class Trace:
    """Every audio and video token through the layers; n original tokens in sequence order, L layers.

    modality: (n,) int8, 0 video, 1 audio. chunk: (n,) int64. time_s: (n,) float64, from the range's start.
    alive: (L, n) bool. score: (L, n) float32, NaN where not kept or not scored.
    cached: (L, n) bool, the tokens whose keys and values the layer's cache holds while the answer is generated: those
        alive, unless the method prunes caches.
    surplus: (n,) float32, the attention that the question drew to each token; see `PrefillOutput`.
    """

    modality: NDArray[np.int8]
    chunk: NDArray[np.int64]
    time_s: NDArray[np.float64]
    alive: NDArray[np.bool_]
    score: NDArray[np.float32]
    cached: NDArray[np.bool_]
    surplus: NDArray[np.float32]

    @classmethod
    def of(cls, layout: TokenLayout, result: PrefillOutput) -> "Trace":
        """The trace of a prompt after its prefill."""
        media = layout.media
        alive = np.zeros((len(result.alive), media.stop - media.start), dtype=bool)
        score = np.full(alive.shape, np.nan, dtype=np.float32)
        cached = np.zeros_like(alive)
        for layer, (index, in_cache, scores) in enumerate(zip(result.alive, result.cached, result.scores, strict=True)):
            at = index.cpu().numpy()
            alive[layer, at] = True
            cached[layer, in_cache.cpu().numpy()] = True
            if scores is not None:
                score[layer, at] = scores.cpu().numpy()
        surplus = result.surplus.cpu().numpy()
        return cls(layout.modality[media], layout.chunk[media], layout.time_s[media], alive, score, cached, surplus)

    def __repr__(self) -> str:
        layers, tokens = self.alive.shape
        return f"<Trace: {tokens} tokens through {layers} layers>"

    def save(self, path: str | Path) -> None:
        """Write the arrays to `path`, compressed, in NumPy's npz format."""
        with Path(path).open("wb") as file:  # by handle, so that NumPy does not add a suffix of its own
            np.savez_compressed(
                file,
                modality=self.modality,
                chunk=self.chunk,
                time_s=self.time_s,
                alive=self.alive,
                score=self.score,
                cached=self.cached,
                surplus=self.surplus,
            )
