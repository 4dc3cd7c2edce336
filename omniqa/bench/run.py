"""One run of one method: its times, its memory, its tokens, and its distributions along a given answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile, zip_longest
from pathlib import Path

import torch
from torch import Tensor

from omniqa.models.base import AUDIO
from omniqa.models.decode_step import DecodeStep
from omniqa.models.generate import generate
from omniqa.pipeline.engine import EncodedClip, OmniQA, Prefilled
from omniqa.pipeline.stats import StageClock, peak_device_bytes, peak_rss_bytes, reset_device_peak
from omniqa.pruning.contract import AnyMethod
from omniqa.runtime.generation_options import GenerationOptions

CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True, eq=False)
class Run:
    """One run of one method on one question; times in seconds.

    achieved: retention over all layers. text: the prompt's text tokens. audio_kept, video_kept: what entered layer 0.
    first_token: from the question to the first token's choice. per_token: mean over the tokens after the first; None
    where there is none.
    peak_rss_bytes, peak_device_bytes: of this run alone; None where that can't be told.
    tokens: all that were generated, the end token and what comes after it included.
    """

    achieved: float
    text: int
    audio_kept: int
    video_kept: int
    input_pruning: float
    prefill: float
    first_token: float
    per_token: float | None
    peak_rss_bytes: int | None
    peak_device_bytes: int | None
    tokens: tuple[int, ...]

    def answer(self, eos: frozenset[int]) -> tuple[int, ...]:
        """The tokens before the first of `eos`."""
        return tuple(takewhile(lambda token: token not in eos, self.tokens))

    def through_end(self, eos: frozenset[int]) -> tuple[int, ...]:
        """The answer with its end token, if that was generated: every token that the model chose for it."""
        return self.tokens[: len(self.answer(eos)) + 1]


@dataclass(frozen=True, eq=False)
class Runner:
    """One question about one encoded clip, to be answered by one method after another.

    new_tokens: how many every run generates, greedily and on past the answer's end, so that all do the same work.
    """

    qa: OmniQA
    video: EncodedClip
    question: str
    new_tokens: int

    def run(self, pruner: AnyMethod) -> Run:
        """Run the method once. Raises the errors of PrefillStage.prefill."""
        device = self.qa.model.device
        clock = StageClock(device)
        reset_device_peak(device)
        rss_is_ours = reset_rss_peak()
        asked = time.perf_counter()
        prefilled = self.qa.prefiller.prefill(self.video, self.question, pruner, self.new_tokens, clock)
        tokens, chosen = self._generate(prefilled)
        layout, alive = prefilled.layout, prefilled.result.alive
        media = layout.modality[layout.media]
        entered = media[alive[0].cpu().numpy()]
        audio = int((entered == AUDIO).sum())
        steps = [after - before for before, after in pairwise(chosen)]
        return Run(
            achieved=sum(map(len, alive)) / (len(alive) * len(media)),
            text=len(layout.ids) - len(media),
            audio_kept=audio,
            video_kept=len(entered) - audio,
            input_pruning=clock.seconds["input_pruning"],
            prefill=clock.seconds["prefill"],
            first_token=chosen[0] - asked,
            per_token=sum(steps) / len(steps) if steps else None,
            peak_rss_bytes=peak_rss_bytes() if rss_is_ours else None,
            peak_device_bytes=peak_device_bytes(device),
            tokens=tuple(tokens),
        )

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
        clock = StageClock(self.qa.model.device)
        prefilled = self.qa.prefiller.prefill(self.video, self.question, pruner, len(tokens), clock)
        step = DecodeStep(self.qa.decoder, prefilled.cache, prefilled.layout.next_position)
        rows = [prefilled.result.logits.cpu()]
        rows += [step(token).to("cpu", copy=True) for token in tokens[:-1]]  # the next step overwrites its logits
        return torch.stack(rows)

    def _generate(self, prefilled: Prefilled) -> tuple[list[int], list[float]]:
        """Token ids, and when each was chosen: the device has then ended, for choosing reads what it computed."""
        tokens, chosen = [], []
        logits, position, decoding = (
            prefilled.result.logits,
            prefilled.layout.next_position,
            GenerationOptions(self.new_tokens),
        )
        for token in generate(self.qa.decoder, logits, position, prefilled.cache, decoding, frozenset()):
            tokens.append(token)
            chosen.append(time.perf_counter())
        return tokens, chosen


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
