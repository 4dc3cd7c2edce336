"""How an answer is written: length, temperature, seed. Free of torch, so that arguments are checked at once."""

from dataclasses import dataclass

from omniqa.errors import UsageError


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is written.

    Attributes:
        max_new_tokens: at most so many.
        temperature: 0 takes the likeliest token each time (greedy); above 0 draws from softmax(logits / temperature).
        top_p: draw only from the likeliest tokens that together reach this probability.
        seed: makes draws repeatable, on every device the same.
        stop_at_end: False generates on past the answer's end, so that all answers are equally long.

    Raises:
        UsageError: a value is out of range.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop_at_end: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}.", field="max_new_tokens")
        if self.temperature < 0:
            raise UsageError(f"temperature must not be negative, as {self.temperature} is.", field="temperature")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, not {self.top_p}.", field="top_p")
