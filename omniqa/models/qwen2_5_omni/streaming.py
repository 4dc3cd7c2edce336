"""The streaming encoder: a long clip's grids through the vision encoder, handed on and freed window by window."""

from collections.abc import Callable

import torch
from torch import Tensor

from omniqa.models.qwen2_5_omni.vision import GridStream, VisionEncoder

HELD_TOKENS = 2048  # of different grids, held so that equal ones need not be encoded again: a batch of the encoder


class StreamingEncoder(GridStream):
    """A GridStream that hands on whole windows of `window` grids, and holds no more than it needs.

    Batches and embeddings are those of a GridStream, except if a grid equals one further back than HELD_TOKENS: it is
    encoded again, in another batch, and equal to the encoder's rounding.

    Args:
        take: gets (grids, tokens_per_grid, d) embeddings, in order, a whole number of windows at a time.
    """

    def __init__(self, encoder: VisionEncoder, window: int, take: Callable[[Tensor], None]) -> None:
        super().__init__(encoder)
        self._window = window
        self._take = take

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """(grids, tokens_per_grid, d) embeddings of the grids not handed on: less than a window. At least one came."""
        self._encode_waiting()
        return self._of(self._order)

    @property
    def held(self) -> int:
        """How many grids' embeddings are held."""
        return sum(map(len, self._encoded))

    def _encode_waiting(self) -> None:
        super()._encode_waiting()
        self._encoded = [torch.cat(self._encoded)]
        done = len(self._order) // self._window * self._window
        if done:
            tokens_per_grid = self._encoded[0].shape[1]
            step = self._window * max(1, HELD_TOKENS // (tokens_per_grid * self._window))
            for first in range(0, done, step):
                self._take(self._of(self._order[first : min(first + step, done)]))
            self._free(done, max(1, HELD_TOKENS // tokens_per_grid))

    def _of(self, order: list[int]) -> Tensor:
        (encoded,) = self._encoded
        return encoded[torch.tensor(order, dtype=torch.long, device=encoded.device)]

    def _free(self, done: int, most: int) -> None:
        """Free the first `done` grids; hold what the others need, and the last `most` different ones."""
        (encoded,) = self._encoded
        rest = self._order[done:]
        kept = sorted({*rest, *range(max(0, len(encoded) - most), len(encoded))})
        place = {number: k for k, number in enumerate(kept)}
        self._encoded = [self._of(kept)]
        self._number = {digest: place[number] for digest, number in self._number.items() if number in place}
        self._order = [place[number] for number in rest]
