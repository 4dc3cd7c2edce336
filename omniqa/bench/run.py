"""One run of one method: its times, its memory, its tokens, and what it thinks of the first token."""

import time
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path

from torch import Tensor

from omniqa.engine import EncodedVideo, OmniQA, Prefilled
from omniqa.model.decoding import Decoding
from omniqa.model.generate import generate
from omniqa.pruning.contract import AnyMethod
from omniqa.sequence.units import AUDIO
from omniqa.stats import StageClock, peak_device_bytes, peak_rss_bytes, reset_device_peak

CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True, eq=False)
class Run:
    """One run of one method on one question; times in seconds.

    achieved: retention over all layers. text: the prompt's text tokens. audio_kept, video_kept: what entered layer 0.
    first_token: from the question to the first token's choice. per_token: mean over the tokens after the first; None
    where there is none.
    peak_rss_bytes, peak_device_bytes: of this run alone; None where that can't be told.
    tokens: all that were generated, the end token and what comes after it included.
    logits: (vocabulary,) float64, of the first token, on the CPU.
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
    logits: Tensor

    def answer(self, eos: frozenset[int]) -> tuple[int, ...]:
        """The tokens before the first of `eos`."""
        return tuple(takewhile(lambda token: token not in eos, self.tokens))


@dataclass(frozen=True, eq=False)
class Runner:
    """One question about one encoded clip, to be answered by one method after another.

    new_tokens: how many every run generates, greedily and on past the answer's end, so that all do the same work.
    """

    qa: OmniQA
    video: EncodedVideo
    question: str
    new_tokens: int

    def run(self, pruner: AnyMethod) -> Run:
        """Run the method once. Raises the errors of Prefiller.prefill."""
        device = self.qa.thinker.device
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
            logits=prefilled.result.logits.double().cpu(),
        )

    def _generate(self, prefilled: Prefilled) -> tuple[list[int], list[float]]:
        """Token ids, and when each was chosen: the device has then ended, for choosing reads what it computed."""
        tokens, chosen = [], []
        logits, position, decoding = prefilled.result.logits, prefilled.layout.next_position, Decoding(self.new_tokens)
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
    """KL(full ‖ other) in nats of the distributions that two rows of logits (vocabulary,), float64, stand for."""
    p, q = full.log_softmax(-1), other.log_softmax(-1)
    return max(0.0, float((p.exp() * (p - q)).sum()))  # rounding can take it below 0, where it never is
