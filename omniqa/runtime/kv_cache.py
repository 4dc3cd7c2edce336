"""The KV cache: one length per layer, for each holds its own tokens."""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer, tokens before heads: (tokens, KV, D).

    A layer's storage is taken when the layer runs, for what it holds and for the tokens still to come. While an answer
    is generated it never moves: a captured step finds it where it was.

    Attributes:
        unused: tokens that can still be added to each layer.
        lengths: (L,) tokens that each layer holds.
    """

    def __init__(self, layers: int, max_new_tokens: int) -> None:
        """`max_new_tokens`: how many tokens will be added to each layer after its prefill."""
        self.unused = max_new_tokens
        self.lengths = [0] * layers
        self._stored: list[Tensor] = [torch.empty(2, 0, 1, 1)] * layers

    def reserve(self, layer: int, tokens: int, like: Tensor) -> None:
        """Take a layer's storage for so many tokens and the room after them; keys are as `like` (·, KV, D)."""
        stored = like.new_empty(2, tokens + self.unused, *like.shape[1:])
        stored[:, tokens:] = 0  # a hidden key counts for nothing only if it is a number
        self._stored[layer] = stored

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (tokens, KV, D) to `layer`; give all that it holds now, without copying."""
        keys, values = self.storage(layer)
        start, end = self.lengths[layer], self.lengths[layer] + len(k)
        keys[start:end], values[start:end] = k, v
        self.lengths[layer] = end
        return keys[:end], values[:end]

    def keep(self, layer: int, rows: Tensor) -> None:
        """Keep the tokens at `rows` (m,) of a layer alone, and free what the others took."""
        whole = self._stored[layer]
        self.reserve(layer, len(rows), whole[0])
        self._stored[layer][:, : len(rows)] = whole[:, rows]
        self.lengths[layer] = len(rows)

    def storage(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values (capacity, KV, D) of `layer`, the room that is not filled yet included."""
        keys, values = self._stored[layer].unbind(0)
        return keys, values

    def advance(self) -> None:
        """Count a token that was written into the storage of every layer.

        Raises:
            ValueError: there is no room.
        """
        if not self.unused:
            raise ValueError("the cache has no room for another token")
        self.unused -= 1
        self.lengths = [length + 1 for length in self.lengths]

    @property
    def bytes(self) -> int:
        """Storage held, room included."""
        return sum(x.numel() * x.element_size() for x in self._stored)
