"""Generated tokens through the decoder, one at a time and always in the same shapes, so that a step can be captured."""

import torch
from torch import Tensor

from omniqa.models.decoder import Decoder
from omniqa.runtime.cuda_graph import GraphedStep
from omniqa.runtime.kv_cache import KVCache

CAPTURE_AFTER = 8  # steps; capturing costs about as much as a few steps save, and many answers are shorter


class DecodeStep:
    """Runs the tokens of one answer, the first of them at `position`, on the cache that its prefill left.

    What differs from step to step is kept in tensors that stay in place: the token, its position, where each layer's
    cache takes it, and which of the cached tokens are there yet. On CUDA the same step is captured once as a graph and
    replayed, so that a step is one launch and not some hundreds.
    """

    @torch.inference_mode()
    def __init__(self, decoder: Decoder, cache: KVCache, position: int) -> None:
        self.decoder = decoder
        self.cache = cache
        weight = decoder.model.norm.weight  # the head's may be quantised
        device, dtype = weight.device, weight.dtype
        longest = max(cache.lengths)
        self._token = torch.zeros(1, dtype=torch.long, device=device)
        self._position = torch.full((3, 1), position, device=device)
        self._places = torch.tensor(cache.lengths, device=device)
        self._prefilled = tuple(cache.lengths)
        # One mask for all layers, each of which looks at its end: what is added to scores, 0 or -inf.
        self._attn_mask = torch.zeros(longest + cache.unused, dtype=dtype, device=device)
        self._attn_mask[longest:] = -torch.inf
        self._end = torch.tensor([longest], device=device)
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
        if self._captured is None and self._token.is_cuda and self._run > CAPTURE_AFTER:
            self._captured = GraphedStep(self._step)
        return self._captured.replay() if self._captured else self._step()

    def _step(self) -> Tensor:
        """One step, by nothing but operations on the device, whose shapes do not depend on which step it is."""
        decoder = self.decoder
        self._attn_mask.index_fill_(0, self._end, 0)
        lengths = (self._places + 1).int()
        x = decoder.embed(self._token)
        rotary = decoder.rotary(x, self._position)
        longest = max(self._prefilled)
        for number, prefilled in enumerate(self._prefilled):
            q, k, v = decoder.project(number, x, rotary)
            keys, values = self.cache.storage(number)
            place = self._places[number : number + 1]
            keys.index_copy_(0, place, k)
            values.index_copy_(0, place, v)
            attn_mask, length = self._attn_mask[longest - prefilled :], lengths[number : number + 1]
            x = decoder.finish(number, x, decoder.attention.decode(q, keys, values, attn_mask, length))
        for moving in (self._position, self._places, self._end):
            moving.add_(1)
        return decoder.logits(x[-1])
