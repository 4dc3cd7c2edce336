"""The KV cache: one length per layer, for each layer keeps the tokens that were alive in it."""

from collections.abc import Sequence

from torch import Tensor


class KVCache:
    """Keys and values of every layer, tokens before heads: (tokens, KV, D).

    All storage is taken once, before the first layer runs, for what the schedule says that each layer will hold and
    for the tokens still to come. It never moves: a captured step finds it where it was.

    room: tokens that can still be added to each layer. lengths: (L,) tokens that each layer holds.
    """

    def __init__(self, layers: int, room: int) -> None:
        """`room`: how many tokens will be added to each layer after its prefill."""
        self.room = room
        self.lengths = [0] * layers
        self._stored: list[Tensor] = []

    def reserve(self, tokens: Sequence[int], like: Tensor, heads: int, size: int) -> None:
        """Take storage for (L,) `tokens` of each layer and the room after them, in the dtype and place of `like`."""
        capacity = [count + self.room for count in tokens]
        self._stored = list(like.new_empty(2, sum(capacity), heads, size).split(capacity, dim=1))
        for stored, count in zip(self._stored, tokens, strict=True):
            stored[:, count:] = 0  # a hidden key counts for nothing only if it is a number

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (tokens, KV, D) to `layer`; give all that it holds now, without copying."""
        keys, values = self.storage(layer)
        start, end = self.lengths[layer], self.lengths[layer] + len(k)
        keys[start:end], values[start:end] = k, v
        self.lengths[layer] = end
        return keys[:end], values[:end]

    def storage(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values (capacity, KV, D) of `layer`, the room that is not filled yet included."""
        keys, values = self._stored[layer].unbind(0)
        return keys, values

    def advance(self) -> None:
        """Count a token that was written into the storage of every layer. Raises ValueError where there is no room."""
        if not self.room:
            raise ValueError("the cache has no room for another token")
        self.room -= 1
        self.lengths = [length + 1 for length in self.lengths]

    @property
    def bytes(self) -> int:
        """Storage held, room included."""
        return sum(x.numel() * x.element_size() for x in self._stored)
