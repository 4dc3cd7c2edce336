"""What each video token receives in the vision encoder's last block, for methods that need it (SEATS)."""

from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from omniqa.models.encoded_media import received_by_keys
from omniqa.models.qwen2_5_omni.vision import GridStream, VisionEncoder
from omniqa.models.qwen2_5_omni.windows import FRAMES, MERGE, PATCH
from omniqa.pruning.contract import VisionAttention

WINDOW = VisionAttention.grids


class _ObservedEncoder(VisionEncoder):
    """A VisionEncoder that keeps the queries and keys (grids, patches, H, D) of its last block."""

    queries: Tensor
    keys: Tensor

    def project(self, attention: Any, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(attention, x, rotary)
        if attention is self.visual.blocks[-1].attn:
            self.queries, self.keys = q, k
        return q, k, v


class AttendedStream(GridStream):
    """A GridStream that also works out `VisionAttention`; windows of two equal grids are encoded once.

    The softmax runs over a window of two grids, although the block attends within one. Its matrix is never held: it is
    computed in blocks of queries.

    Attributes:
        attention: (n_V,) float32, once `finish` was called.
    """

    def __init__(self, encoder: VisionEncoder) -> None:
        self._observed = _ObservedEncoder(encoder.visual, encoder.attention)
        super().__init__(self._observed)
        self._window: list[Tensor] = []
        self._received: list[Tensor] = []  # of each different window
        self.attention: Tensor | None = None

    @torch.inference_mode()
    def push(self, frames: Any) -> None:
        """See GridStream."""
        self._window.append(torch.from_numpy(frames))
        self.grids += 1
        if len(self._window) == WINDOW:
            self._close_window()

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """See GridStream."""
        if self._window:
            self._close_window()
        self._encode_waiting()
        self.attention = torch.cat([self._received[number] for number in self._order])
        return torch.cat([self._encoded[number] for number in self._order])

    def _close_window(self) -> None:
        window, self._window = torch.cat(self._window), []
        digest = blake2b(repr(window.shape).encode() + window.contiguous().numpy().tobytes(), digest_size=16).digest()
        if digest not in self._number:
            self._number[digest] = len(self._number)
            self._waiting.append(window)
        else:
            self.grids_reused += len(window) // FRAMES
        self._order.append(self._number[digest])
        patches = window.shape[1] * window.shape[2] // PATCH**2
        if patches * sum(map(len, self._waiting)) // FRAMES >= self._encoder.batch_patches:
            self._encode_waiting()

    def _encode_waiting(self) -> None:
        if not self._waiting:
            return
        sizes = [len(window) // FRAMES for window in self._waiting]
        rows, cols = (side // (PATCH * MERGE) for side in self._waiting[0].shape[1:3])
        restore = self._observed.tables(rows, cols).restore
        encoded = self._observed._encode_grids(torch.cat(self._waiting))
        self._encoded += [window.clone() for window in encoded.split(sizes)]
        pairs = zip(self._observed.queries.split(sizes), self._observed.keys.split(sizes), strict=True)
        for queries, keys in pairs:
            received = received_by_keys(queries.flatten(0, 1).float(), keys.flatten(0, 1).float())
            by_token = received.view(len(queries), -1, MERGE**2).mean(-1)
            self._received.append(by_token[:, restore].flatten())
        self._waiting = []
        del self._observed.queries, self._observed.keys
