"""A clip's grids through the vision encoder with pruning inside it, as they arrive."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from omniqa.models.base import TakeGrids
from omniqa.models.qwen2_5_omni.early_pruning import PATCHES, EarlyPruning
from omniqa.models.qwen2_5_omni.vision import VisionEncoder
from omniqa.models.qwen2_5_omni.windows import CELL
from omniqa.pruning.vision_rule import VisionRule


@dataclass
class _Waiting:
    """A window of grids that is not encoded yet, and how often it comes in a row."""

    frames: list[Tensor]
    times: int = 1


class EarlyStream:
    """Encodes a clip's grids as they arrive, with a rule's pruning or the pixel rule inside the encoder.

    A window of grids that equals the one before it is not encoded again. With the pixel rule that comes by itself.

    Attributes:
        grids: how many have come.
        grids_reused: how many of them stand in a window that equals the one before it.
        added: nothing is added in this family's decoder.
    """

    def __init__(self, encoder: VisionEncoder, rule: VisionRule | None, levels: float | None, take: TakeGrids) -> None:
        """Args as `Model.vision_stream`; a rule without a block is left to `take`."""
        self.added: Tensor | None = None
        self.grids = self.grids_reused = 0
        self._encoder = encoder
        self._rule = rule
        early = rule if rule is not None and rule.block is not None and rule.block < encoder.depth else None
        self._pruning = EarlyPruning(encoder, early, levels)
        self._take = take
        self._window: list[Tensor] = []
        self._waiting: list[_Waiting] = []
        self._digests: list[bytes] = []  # of the window that is filled now, and of the one before it
        self._previous: list[bytes] = []
        self._last: tuple[Tensor, Tensor] | None = None  # what the window before became
        self._whole: list[Tensor] = []  # embeddings, if there is no rule
        self._tokens_per_grid = 1

    @property
    def tokens_reused(self) -> float:
        """The share of all tokens that the pixel rule did not compute."""
        return self._pruning.represented / (self.grids * self._tokens_per_grid) if self.grids else 0.0

    @torch.inference_mode()
    def push(self, frames: Any) -> None:
        """Take one grid: uint8 frames (2, H, W, 3), all of one size, sides multiples of 28. They are not copied."""
        grid = torch.from_numpy(frames)
        self._tokens_per_grid = grid.shape[1] * grid.shape[2] // CELL**2
        self._window.append(grid)
        if self._pruning.levels is None:
            self._digests.append(blake2b(grid.contiguous().numpy().data, digest_size=16).digest())
        self.grids += 1
        if len(self._window) == (self._rule.window if self._rule else 1):
            self._close_window()
        if sum(len(window.frames) for window in self._waiting) >= self._grids_together():
            self._encode_waiting()

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """(grids, tokens_per_grid, d) embeddings of the grids not handed on: with a rule none."""
        if self._window:
            self._close_window()
        self._encode_waiting()
        assert self._last is not None
        return torch.cat(self._whole) if self._whole else self._last[0][:0]

    def _grids_together(self) -> int:
        """Grids of one batch: about as many as the encoder's patches, counting those that are computed."""
        rule, grids, tokens = self._pruning.rule, 1, self._tokens_per_grid
        if self._rule is not None:
            grids, tokens = self._rule.window, self._tokens_per_grid * self._rule.window
        if rule is not None and self._pruning.levels is not None:
            return grids  # see EarlyPruning
        if rule is not None:
            tokens = sum(rule.counts(rule.window, self._tokens_per_grid))
        return grids * max(1, self._encoder.batch_patches // (PATCHES * max(1, tokens)))

    def _close_window(self) -> None:
        """The window is full, or the clip's last."""
        window, digests = self._window, self._digests
        self._window, self._digests = [], []
        if self._pruning.levels is None and digests == self._previous:
            self.grids_reused += len(window)
            if self._waiting:
                self._waiting[-1].times += 1
            else:
                assert self._last is not None
                self._hand_on(*self._last)
        else:
            self._waiting.append(_Waiting(window))
        self._previous = digests

    def _encode_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        tokens, keep = self._pruning.encode(torch.cat([grid for window in waiting for grid in window.frames]))
        counts = [len(window.frames) for window in waiting]
        for window, *became in zip(waiting, tokens.split(counts), keep.split(counts), strict=True):
            self._last = became[0], became[1]
            for _ in range(window.times):
                self._hand_on(*self._last)

    def _hand_on(self, tokens: Tensor, keep: Tensor) -> None:
        """What a window became: (grids, n, d) embeddings, and (grids, n) bool what is kept."""
        if self._rule is None:
            self._whole.append(tokens)
        elif self._pruning.rule is None:
            self._take(tokens, None)
        else:
            self._take(tokens[keep], keep)
