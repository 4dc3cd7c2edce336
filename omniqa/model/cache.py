"""The KV cache: one length per layer, for each layer keeps the tokens that were alive in it."""

from torch import Tensor


class KVCache:
    """Keys and values of every layer, tokens before heads: (tokens, KV, D).

    A layer's storage is taken once, when its prefill is appended, with room for the tokens still to come.
    """

    def __init__(self, layers: int, room: int) -> None:
        """`room`: how many tokens will be appended to each layer after its prefill."""
        self.room = room
        self.lengths = [0] * layers
        self._stored: list[tuple[Tensor, Tensor]] = []

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (tokens, KV, D) to `layer`; give all that it holds now, without copying."""
        if layer == len(self._stored):
            shape = (len(k) + self.room, *k.shape[1:])
            self._stored.append((k.new_empty(shape), v.new_empty(shape)))
        keys, values = self._stored[layer]
        start, end = self.lengths[layer], self.lengths[layer] + len(k)
        keys[start:end], values[start:end] = k, v
        self.lengths[layer] = end
        return keys[:end], values[:end]

    @property
    def bytes(self) -> int:
        """Storage held, room included."""
        return sum(x.numel() * x.element_size() for pair in self._stored for x in pair)
