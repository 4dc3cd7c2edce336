"""Generated tokens through the decoder, one at a time and always in the same shapes, so that a step can be captured."""

import torch
from torch import Tensor

from omniqa.models.decoder import Decoder
from omniqa.runtime.cuda_graph import GraphedStep
from omniqa.runtime.kv_cache import KVCache

CAPTURE_AFTER = 8  # steps; capturing costs about as much as a few steps save, and many answers are shorter


class _CacheEnds:
    """On one device: where each layer's cache takes the next token, and which of the cached tokens are there yet.

    Attributes:
        places: (L,) of the next token.
        attn_mask: what is added to scores, 0 or -inf: one for all layers, each of which looks at its end.
    """

    def __init__(self, cache: KVCache, device: torch.device, dtype: torch.dtype) -> None:
        longest = max(cache.lengths)
        self.places = torch.tensor(cache.lengths, device=device)
        self.attn_mask = torch.zeros(longest + cache.unused, dtype=dtype, device=device)
        self.attn_mask[longest:] = -torch.inf
        self._end = torch.tensor([longest], device=device)

    def open(self) -> Tensor:
        """Let the next token be seen; (L,) int32 tokens that each layer then holds."""
        self.attn_mask.index_fill_(0, self._end, 0)
        return (self.places + 1).int()

    def advance(self) -> None:
        """Go on to the token after it."""
        self.places.add_(1)
        self._end.add_(1)


class DecodeStep:
    """Runs the tokens of one answer, the first of them at `position`, on the cache that its prefill left.

    What differs from step to step is kept in tensors that stay in place: the token, its position, where each layer's
    cache takes it, and which of the cached tokens are there yet. On CUDA the same step is captured once as a graph and
    replayed, so that a step is one launch and not some hundreds. Layers on several devices are not captured.
    """

    @torch.inference_mode()
    def __init__(self, decoder: Decoder, cache: KVCache, position: int) -> None:
        self.decoder = decoder
        self.cache = cache
        weight = decoder.model.norm.weight  # the head's may be quantised
        device, dtype = weight.device, weight.dtype
        self._token = torch.zeros(1, dtype=torch.long, device=device)
        self._position = torch.full((3, 1), position, device=device)
        self._prefilled = tuple(cache.lengths)
        self._ends = {place: _CacheEnds(cache, place, dtype) for place in dict.fromkeys(decoder.devices)}
        self._can_capture = device.type == "cuda" and [*self._ends] == [device]
        self._captured: GraphedStep | None = None
        self._run = 0

    @torch.inference_mode()
    def __call__(self, token: int) -> Tensor:
        """Run `token`; give the next one's logits (vocabulary,), float32, which the next call may overwrite.

        Raises:
            ValueError: the cache has no room for it.
        """
        self.cache.advance()
        self._token.fill_(token)
        self._run += 1
        if self._captured is None and self._can_capture and self._run > CAPTURE_AFTER:
            self._captured = GraphedStep(self._step)
        return self._captured.replay() if self._captured else self._step()

    def _step(self) -> Tensor:
        """One step, by nothing but operations on the device, whose shapes do not depend on which step it is."""
        decoder = self.decoder
        lengths = {device: ends.open() for device, ends in self._ends.items()}
        x = decoder.embed(self._token)
        rotary = decoder.rotary(x, self._position)
        longest = max(self._prefilled)
        for number, prefilled in enumerate(self._prefilled):
            device, own = decoder.devices[number], slice(number, number + 1)
            x, rotary = x.to(device), (rotary[0].to(device), rotary[1].to(device))
            q, k, v = decoder.project(number, x, rotary)
            keys, values = self.cache.storage(number)
            ends = self._ends[device]
            keys.index_copy_(0, ends.places[own], k)
            values.index_copy_(0, ends.places[own], v)
            attn_mask = ends.attn_mask[longest - prefilled :]
            x = decoder.finish(number, x, decoder.attention.decode(q, keys, values, attn_mask, lengths[device][own]))
        self._position.add_(1)
        for ends in self._ends.values():
            ends.advance()
        return decoder.logits(x[-1])
