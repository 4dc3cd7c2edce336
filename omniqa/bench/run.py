"""One run of one method: what the engine reports of it, and its distributions along a given answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile, zip_longest
from pathlib import Path

import torch
from torch import Tensor

from omniqa.models.decode_step import DecodeStep
from omniqa.pipeline.answer import Answer
from omniqa.pipeline.engine import EncodedClip, OmniQA
from omniqa.pruning.contract import AnyMethod
from omniqa.pruning.vision_rule import VisionRule
from omniqa.runtime.generation_options import GenerationOptions

CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True, eq=False)
class Run:
    """One run of one method on one question.

    Attributes:
        answer: what the engine reports; its tokens are all that were generated, the end token and what follows
            included.
        peak_rss_bytes: of this run alone; None if that can't be told.
    """

    answer: Answer
    peak_rss_bytes: int | None

    def tokens(self, eos: frozenset[int]) -> tuple[int, ...]:
        """The tokens before the first of `eos`."""
        return tuple(takewhile(lambda token: token not in eos, self.answer.token_ids))

    def through_end(self, eos: frozenset[int]) -> tuple[int, ...]:
        """The answer with its end token, if that was generated: every token that the model chose for it."""
        return self.answer.token_ids[: len(self.tokens(eos)) + 1]


@dataclass(frozen=True, eq=False)
class MethodRunner:
    """One question about one clip, to be answered by one method after another.

    Attributes:
        video: the clip with all tokens.
        early: the clip as each rule inside the vision encoder leaves it.
        new_tokens: how many every run generates, greedily and on past the answer's end, so that all do the same work.
    """

    qa: OmniQA
    video: EncodedClip
    question: str
    new_tokens: int
    early: dict[VisionRule, EncodedClip] = field(default_factory=dict)

    def clip(self, pruner: AnyMethod) -> EncodedClip:
        """The encoding that the method is asked by about. Raises UsageError if it can't serve the clip."""
        rule = self.qa.early_rule(pruner, self.video.counts)
        return self.video if rule is None else self.early[rule]

    def run(self, pruner: AnyMethod) -> Run:
        """Run the method once. Raises the errors of OmniQA.ask_all."""
        rss_is_ours = reset_rss_peak()
        options = GenerationOptions(self.new_tokens, stop_at_end=False)
        answer = next(self.qa.ask_all(self.clip(pruner), [self.question], pruner, decoding=options, reuse_prefix=False))
        return Run(answer, answer.stats.peak_rss_bytes if rss_is_ours else None)

    def follow(self, pruner: AnyMethod, tokens: Sequence[int]) -> Tensor:
        """Prefill with the method, then feed it `tokens` whatever it would say itself (teacher forcing).

        Args:
            pruner: the method.
            tokens: another run's answer, at least one token.

        Returns:
            Logits (len(tokens), vocabulary), float32, on the CPU. Row i is the distribution of tokens[i] after those
            before it.

        Raises:
            OmniQAError: as PrefillStage.prefill.
        """
        prefilled = self.qa.prefiller.prefill(self.clip(pruner), self.question, pruner, len(tokens))
        step = DecodeStep(self.qa.decoder, prefilled.cache, prefilled.layout.next_position)
        rows = [prefilled.logits.cpu()]
        rows += [step(token).to("cpu", copy=True) for token in tokens[:-1]]  # the next step overwrites its logits
        return torch.stack(rows)


def reset_rss_peak() -> bool:
    """Start measuring the peak of resident memory anew; False where the system has no such thing, as Linux has."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def kl_divergence(full: Tensor, other: Tensor) -> float:
    """KL(full ‖ other) in nats of the distributions that logits (…, vocabulary) stand for, mean over rows."""
    p, q = full.double().log_softmax(-1), other.double().log_softmax(-1)
    divergences = (p.exp() * (p - q)).sum(-1)
    return float(divergences.clamp(min=0).mean())  # rounding can take one below 0, where it never is


def first_difference(full: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place, counted from 1, at which two answers' tokens differ or one has ended; None if they are equal."""
    pairs = enumerate(zip_longest(full, other), start=1)
    return next((place for place, (ours, theirs) in pairs if ours != theirs), None)
