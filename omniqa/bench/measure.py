"""Measures methods side by side on one clip.

Their runs take turns, so that a slow minute of the machine hits all alike.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from omniqa.bench.cases import Case, Rounds
from omniqa.bench.report import LeftOut, Measured, Report, Row, Spread
from omniqa.bench.run import MethodRunner, Run, first_difference, kl_divergence
from omniqa.errors import ModelError, OmniqaError, OutOfMemoryError, UsageError
from omniqa.media.clip import Clip
from omniqa.media.sampling import ClipOptions
from omniqa.media.source import Source
from omniqa.models.generate import TextStream
from omniqa.pipeline.engine import EncodedClip, OmniQA, Progress
from omniqa.pipeline.stats import elapsed
from omniqa.pruning.budget import Unreachable
from omniqa.pruning.contract import AnyMethod, needs_attended
from omniqa.pruning.options import options_of
from omniqa.pruning.vision_rule import VisionRule

ENCODING = ("decode", "preprocess", "vision_encoder", "audio_encoder")
T = TypeVar("T")


def bench(
    qa: OmniQA,
    video: str | Path | Source | Clip,
    question: str,
    cases: Sequence[Case],
    *,
    sampling: ClipOptions | None = None,
    rounds: Rounds | None = None,
    progress: Progress = lambda stage, share: None,
    describe: Callable[[OmniqaError], str] = str,
) -> Report:
    """Measure `cases`, of which the first is full tokens, on one clip and one question.

    The clip is decoded and encoded once for each of `rounds`, then each case is run once for each, in turn; every run
    generates equally many tokens, greedily. progress gets the stages of the encoding, then "measure" with the share of
    the runs that are done. describe: the text of an error in the report; the command line names its flags there.

    A case whose retention the method can't reach on this clip is run at the nearest that it can. One that was not
    asked for by name and is refused is left out. One that runs out of memory has a row without figures.
    Raises the errors of omniqa.errors for whatever else goes wrong.
    """
    rounds = rounds or Rounds()
    attended = qa.encoder.reuse_static is None and needs_attended(*[case.pruner for case in cases])
    encode = partial(qa.encode, video, sampling, attended=attended, progress=progress)
    encoded, encoding = _encode(encode, rounds)
    lines = [_Line(case, encoding["total"], describe) for case in cases]
    counts = encoded.counts
    runner = MethodRunner(qa, encoded, question, rounds.new_tokens)
    encode_for = partial(qa.encode, video, sampling, progress=progress)
    _encode_early(runner, lines, lambda pruner: _encode(partial(encode_for, method=pruner), rounds))
    for line in lines:  # what a plan refuses is refused before the long part
        line.attempt(lambda pruner: runner.clip(pruner).plan(pruner, qa.model.layers))
    _run_in_turn(runner, lines, rounds, progress)
    full = lines[0].runs[0] if lines[0].runs else None
    divergences = _divergences(runner, lines, full.through_end(qa.model.end_tokens)) if full else {}
    measured = next((line.runs[0] for line in lines if line.runs), None)
    if measured is None:
        raise OutOfMemoryError(lines[0].note)
    return Report(
        video=encoded.name,
        question=question,
        model=qa.name,
        device=str(qa.model.device),
        dtype=str(qa.model.dtype).removeprefix("torch."),
        attention=qa.attention.name,
        threads=torch.get_num_threads(),
        repeats=rounds.repeats,
        warmup=rounds.warmup,
        new_tokens=rounds.new_tokens,
        text_tokens=measured.answer.stats.tokens.text,
        audio_tokens=counts.n_audio,
        video_tokens=counts.n_video,
        media=encoded.summary,
        encoding=encoding,
        rows=tuple(line.row(qa, full, divergences.get(line.pruner)) for line in lines if not line.refusal),
        left_out=tuple(dict.fromkeys(LeftOut(line.asked.name, line.refusal) for line in lines if line.refusal)),
    )


def _encode(encode: Callable[[], EncodedClip], rounds: Rounds) -> tuple[EncodedClip, dict[str, Spread]]:
    """The encoded clip, and what its stages took, with "total"."""
    timings = []
    for _ in range(rounds.warmup + rounds.repeats):
        encoded = None  # never two of them at a time
        encoded = encode()
        timings.append(encoded.timing_s)
    assert encoded is not None
    counted = timings[rounds.warmup :]
    spreads = {stage: Spread.of([timing.get(stage, 0.0) for timing in counted]) for stage in ENCODING}
    return encoded, spreads | {"total": Spread.of([elapsed(timing) for timing in counted])}


def _encode_early(
    runner: MethodRunner,
    lines: Sequence["_Line"],
    encode: Callable[[AnyMethod], tuple[EncodedClip, dict[str, Spread]]],
) -> None:
    """Encode the clip once for each rule inside the vision encoder; its lines tell what that took."""
    taken: dict[VisionRule, Spread] = {}
    for line in lines:
        rule = line.attempt(lambda pruner: runner.qa.early_rule(pruner, runner.video.counts))
        if rule is not None and rule not in taken:
            runner.early[rule], seconds = encode(line.pruner)
            taken[rule] = seconds["total"]
        if rule is not None:
            line.encoding = taken[rule]


def _run_in_turn(runner: MethodRunner, lines: Sequence["_Line"], rounds: Rounds, progress: Progress) -> None:
    """Run every line once, then every line once again, …; those that come to the same run share it."""
    total = (rounds.warmup + rounds.repeats) * len(lines)
    for number in range(rounds.warmup + rounds.repeats):
        done: dict[AnyMethod, Run] = {}

        def once(pruner: AnyMethod, done: dict[AnyMethod, Run] = done) -> Run:
            if pruner not in done:
                done[pruner] = runner.run(pruner)
            return done[pruner]

        for place, line in enumerate(lines, start=1):
            run = line.attempt(once)
            if run is not None and number >= rounds.warmup:
                line.runs.append(run)
            progress("measure", (number * len(lines) + place) / total)


def _divergences(runner: MethodRunner, lines: Sequence["_Line"], answer: Sequence[int]) -> dict[AnyMethod, float]:
    """Each method's mean KL from full tokens, the first of the lines, along full tokens' answer."""
    full = lines[0].attempt(lambda pruner: runner.follow(pruner, answer))
    divergences = {lines[0].pruner: 0.0}
    for line in lines:
        if full is None or line.pruner in divergences:
            continue
        divergence = line.attempt(lambda pruner: kl_divergence(full, runner.follow(pruner, answer)))
        if divergence is not None:
            divergences[line.pruner] = divergence
    return divergences


class _Line:
    """A case while it is measured.

    Attributes:
        asked: the method as asked for.
        pruner: the same at the retention that it is run at.
        encoding: seconds of decoding and encoding the clip for it.
        note: what the table says of it.
        refusal: why it is left out; empty where it is not.
        runs: those that count.
    """

    def __init__(self, case: Case, encoding: Spread, describe: Callable[[OmniqaError], str]) -> None:
        self.encoding = encoding
        self.required = case.required
        self.asked = self.pruner = case.pruner
        self.note = self.refusal = ""
        self.runs: list[Run] = []
        self._over = False
        self._describe = describe

    def attempt(self, action: Callable[[AnyMethod], T]) -> T | None:
        """What `action` makes of the method, at the nearest retention that it reaches; None where it can't serve."""
        if self._over:
            return None
        try:
            return self._nearest(action)
        except OutOfMemoryError as error:
            self.note = self._describe(error)
            self.runs.clear()
        except (UsageError, ModelError) as error:
            if self.required:
                raise
            self.refusal = self._describe(error)
        self._over = True
        return None

    def _nearest(self, action: Callable[[AnyMethod], T]) -> T:
        try:
            return action(self.pruner)
        except Unreachable as error:
            self.note = f"{error.method} comes no nearer than {error.nearest:.4f} on this clip, and is measured there."
            self.pruner = replace(self.pruner, retention=error.nearest)
        return action(self.pruner)

    def row(self, qa: OmniQA, full: Run | None, kl: float | None) -> Row:
        """The line of the table."""
        given = {option.name: getattr(self.asked, option.name) for option in options_of(type(self.asked))}
        defaults = {option.name: option.default for option in options_of(type(self.asked))}
        measured = _summary(qa, self.runs, self.encoding, full, kl) if self.runs else None
        return Row(
            method=self.asked.name,
            options={name: value for name, value in given.items() if value != defaults[name]},
            asked=self.asked.target,
            target=self.pruner.target,
            note=self.note,
            measured=measured,
            run=replace(self.runs[0].answer, text=measured.answer) if measured else None,
        )


def _summary(qa: OmniQA, runs: Sequence[Run], encoding: Spread, full: Run | None, kl: float | None) -> Measured:
    """Several runs of one method as one; what is the same in all is the first's."""
    first, eos = runs[0].answer, qa.model.end_tokens
    answer = runs[0].tokens(eos)
    stats = [run.answer.stats for run in runs]
    pruning, prefill, first_token = (
        [one.timing_s[stage] for one in stats] for stage in ("input_pruning", "prefill", "time_to_first_token")
    )
    steps = [one.seconds_per_token for one in stats if one.seconds_per_token is not None]
    return Measured(
        achieved=first.retention.achieved,
        audio_kept=first.stats.tokens.audio_kept,
        video_kept=first.stats.tokens.video_kept,
        encoding=encoding,
        input_pruning=Spread.of(pruning),
        prefill=Spread.of(prefill),
        pruned_prefill=Spread.of([sum(pair) for pair in zip(pruning, prefill, strict=True)]),
        per_token=Spread.of(steps) if steps else None,
        first_token=Spread.of(first_token),
        peak_rss_bytes=_highest(run.peak_rss_bytes for run in runs),
        peak_device_bytes=_highest(one.peak_device_bytes for one in stats),
        answer=_text(qa, answer),
        same_answer=answer == full.tokens(eos) if full else None,
        first_difference=first_difference(full.tokens(eos), answer) if full else None,
        kl=kl,
    )


def _text(qa: OmniQA, tokens: Sequence[int]) -> str:
    """The text as `ask` would write it."""
    stream = TextStream(lambda ids: qa.model.decode_text(ids))
    return "".join([*map(stream.push, tokens), stream.close()]).strip()


def _highest(values: Iterable[int | None]) -> int | None:
    """The highest; None where none is known."""
    return max((value for value in values if value is not None), default=None)
