"""Token by token: choosing the next one, and turning tokens into text as they come."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from omniqa.errors import NotFiniteError
from omniqa.models.decode_step import DecodeStep
from omniqa.models.decoder import Decoder
from omniqa.runtime.generation_options import GenerationOptions
from omniqa.runtime.kv_cache import KVCache


def generate(
    decoder: Decoder, logits: Tensor, position: int, cache: KVCache, decoding: GenerationOptions, eos: frozenset[int]
) -> Iterator[int]:
    """Yield token ids until one of `eos` (not yielded) or the limit.

    Raises NotFiniteError as soon as a token's logits hold NaN or infinity.

    Args:
        logits: (vocabulary,) of the first token, which goes to `position`.
    """
    draws = torch.Generator().manual_seed(decoding.seed)
    step = DecodeStep(decoder, cache, position)
    for count in range(decoding.max_new_tokens):
        token = _choose(logits, decoding, draws)
        if token in eos:
            return
        yield token
        if count + 1 < decoding.max_new_tokens:
            logits = step(token)


def _choose(logits: Tensor, decoding: GenerationOptions, draws: torch.Generator) -> int:
    if decoding.temperature == 0:
        # Both in one transfer: a further one would wait for the device once more a token.
        token, finite = torch.stack([logits.argmax(), logits.isfinite().all().long()]).tolist()
        _require_finite(bool(finite))
        return int(token)
    logits = logits.cpu()  # so that a seed draws the same on every device
    _require_finite(bool(logits.isfinite().all()))
    # From the largest score down, so that a division by next to nothing overflows to -inf alone.
    scores = (logits - logits.max()) / max(decoding.temperature, torch.finfo(logits.dtype).tiny)
    probabilities, order = scores.softmax(-1).sort(descending=True)
    nucleus = probabilities.cumsum(0) - probabilities < decoding.top_p  # always holds for the likeliest
    return int(order[torch.multinomial(probabilities * nucleus, 1, generator=draws)])


def _require_finite(finite: bool) -> None:
    if not finite:
        raise NotFiniteError(
            "The model computed NaN or infinity in place of scores: its weights hold such values, or overflow at this "
            "precision.",
            advice='Use {dtype="float32"}, or get the checkpoint again.',
        )


class TextStream:
    """Turns token ids into text piece by piece, never splitting a character.

    `decode` maps ids to text. In a byte-level vocabulary a token may end inside a character; such a token waits
    for the next.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._waiting: list[int] = []

    def push(self, token: int) -> str:
        """The text that `token` completes; may be empty."""
        self._waiting.append(token)
        text = self._decode(self._waiting)
        return "" if text.endswith("\N{REPLACEMENT CHARACTER}") else self._flush(text)

    def close(self) -> str:
        """What still waits, a broken last character shown as U+FFFD."""
        return self._flush(self._decode(self._waiting))

    def _flush(self, text: str) -> str:
        self._waiting = []
        return text
