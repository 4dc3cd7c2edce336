"""What was measured, and how it is written as JSON and CSV. Free of torch."""

import csv
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omniqa.media.summary import MediaSummary

if TYPE_CHECKING:
    from omniqa.pipeline.answer import Answer

FIGURES = ("tokens", "timing_s", "speedup", "memory", "agreement", "answer")


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing, in seconds: their median, the lowest and the highest."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(seconds: Sequence[float]) -> "Spread":
        """The spread of at least one measurement."""
        return Spread(statistics.median(seconds), min(seconds), max(seconds))

    def after(self, seconds: float) -> "Spread":
        """The same, begun `seconds` earlier."""
        return Spread(seconds + self.median, seconds + self.low, seconds + self.high)


@dataclass(frozen=True)
class Measured:
    """One method at one retention, as measured.

    Attributes:
        achieved: retention over all layers.
        audio_kept, video_kept: tokens that entered layer 0.
        encoding: seconds of decoding and encoding the clip for this method, in all.
        input_pruning, prefill: seconds of these stages.
        pruned_prefill: of both together, which is what a method costs.
        per_token: seconds for each token after the first; None where only one was generated.
        first_token: from the question to the first token, the clip being encoded already.
        peak_rss_bytes: most resident memory in this row's runs; None where the system can't start that count anew.
        peak_device_bytes: most allocated on the GPU; None on the CPU. Both hold the weights and the encoded clip.
        answer: the greedy answer.
        same_answer: whether its tokens are those of full tokens.
        first_difference: the first token, counted from 1, in which it differs from full tokens' answer; None if none
            does.
        kl: mean KL(full ‖ method) over the tokens of full tokens' answer, which both are fed, in nats. All three are
            None where full tokens were not measured.
    """

    achieved: float
    audio_kept: int
    video_kept: int
    encoding: Spread
    input_pruning: Spread
    prefill: Spread
    pruned_prefill: Spread
    per_token: Spread | None
    first_token: Spread
    peak_rss_bytes: int | None
    peak_device_bytes: int | None
    answer: str
    same_answer: bool | None
    first_difference: int | None
    kl: float | None


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        options: those that differ from the method's defaults.
        asked: the retention asked for.
        target: the one that the method was run at, another where it can't reach the asked one.
        note: why so, or why nothing was measured; empty where there is nothing to say.
        measured: None where there was not enough memory.
        run: the first run that counts, with the answer as it is measured; None with `measured`.
    """

    method: str
    options: dict[str, Any]
    asked: float
    target: float
    note: str
    measured: Measured | None
    run: "Answer | None" = None

    @property
    def label(self) -> str:
        """The method with the options that it was given, as one writes them."""
        return f"{self.method}:{_assignments(self.options)}" if self.options else self.method


@dataclass(frozen=True)
class LeftOut:
    """A method that nobody asked for by name and that can't run here, and why."""

    method: str
    reason: str


@dataclass(frozen=True)
class Report:
    """The rows, full tokens first, and what they have in common.

    Attributes:
        threads: of the CPU's products.
        encoding: seconds of decoding and encoding the clip by stage, and in all ("total"), with all tokens.
        new_tokens: how many were generated in each run. The other counts: tokens before pruning.
    """

    video: str
    question: str
    model: str
    device: str
    dtype: str
    attention: str
    threads: int
    repeats: int
    warmup: int
    new_tokens: int
    text_tokens: int
    audio_tokens: int
    video_tokens: int
    media: MediaSummary
    encoding: dict[str, Spread]
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]

    def time_to_first_token(self, measured: Measured) -> Spread:
        """From the opened file to the first token, the encoders' median included."""
        return measured.first_token.after(measured.encoding.median)

    def prefill_speedup(self, measured: Measured) -> float | None:
        """How many times faster than full tokens prefill is, the method's own work at the input level included."""
        full = self.rows[0].measured
        return full.pruned_prefill.median / measured.pruned_prefill.median if full else None

    def first_token_speedup(self, measured: Measured) -> float | None:
        """How many times sooner than with full tokens the first token comes, counted from the opened file."""
        full = self.rows[0].measured
        return self.time_to_first_token(full).median / self.time_to_first_token(measured).median if full else None

    def to_dict(self) -> dict[str, Any]:
        """The object that `omniqa bench` prints as JSON."""
        return {
            "video": self.video,
            "question": self.question,
            "model": self.model,
            "device": self.device,
            "dtype": self.dtype,
            "attention": self.attention,
            "threads": self.threads,
            "repeats": self.repeats,
            "warmup": self.warmup,
            "new_tokens": self.new_tokens,
            "tokens": {"text": self.text_tokens, "audio": self.audio_tokens, "video": self.video_tokens},
            "media": self.media.to_dict(),
            "encoding_s": {stage: _spread(seconds) for stage, seconds in self.encoding.items()},
            "rows": [self._row(row) for row in self.rows],
            "left_out": [asdict(method) for method in self.left_out],
        }

    def _row(self, row: Row) -> dict[str, Any]:
        got = row.measured
        return {
            "method": row.method,
            "options": row.options,
            "retention": {"asked": row.asked, "target": row.target, "achieved": got.achieved if got else None},
            "note": row.note,
            **(self._figures(got) if got else dict.fromkeys(FIGURES)),
        }

    def _figures(self, got: Measured) -> dict[str, Any]:
        """What a row without a measurement has null in place of; keys are FIGURES."""
        return {
            "tokens": {"audio_kept": got.audio_kept, "video_kept": got.video_kept},
            "timing_s": {
                "encoding": _spread(got.encoding),
                "input_pruning": _spread(got.input_pruning),
                "prefill": _spread(got.prefill),
                "input_pruning_and_prefill": _spread(got.pruned_prefill),
                "per_token": _spread(got.per_token) if got.per_token else None,
                "time_to_first_token": _spread(self.time_to_first_token(got)),
            },
            "speedup": {
                "prefill": self.prefill_speedup(got),
                "time_to_first_token": self.first_token_speedup(got),
            },
            "memory": {"peak_rss_bytes": got.peak_rss_bytes, "peak_device_bytes": got.peak_device_bytes},
            "agreement": {
                "same_answer": got.same_answer,
                "first_difference": got.first_difference,
                "kl_nats": got.kl,
            },
            "answer": got.answer,
        }

    def save_csv(self, path: Path) -> None:
        """Write the rows to `path`, one a line; a column's name is the JSON field's with its parents before it."""
        run = {name: getattr(self, name) for name in ("video", "question", "model", "device", "dtype")}
        rows = [_flat(run | self._row(row) | {"options": _assignments(row.options)}) for row in self.rows]
        columns = max(rows, key=len)  # of a row that was measured: one that was not has fewer
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def _spread(seconds: Spread) -> dict[str, float]:
    return {"median": seconds.median, "min": seconds.low, "max": seconds.high}


def _assignments(options: dict[str, Any]) -> str:
    return ",".join(f"{key}={_text(value)}" for key, value in options.items())


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _flat(fields: dict[str, Any], parent: str = "") -> dict[str, Any]:
    """Nested fields on one level: {"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{parent}{name}.") if isinstance(value, dict) else {parent + name: value}
    return flat
