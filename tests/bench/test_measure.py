"""Methods side by side: what is measured, in which order, and what is said of what can't be measured."""

import math

import pytest
import torch

from omniqa.bench.cases import Case, Rounds, make_cases
from omniqa.bench.measure import bench
from omniqa.bench.report import Spread
from omniqa.bench.run import CLEAR_REFS, MethodRunner, first_difference, kl_divergence, reset_rss_peak
from omniqa.errors import OutOfMemoryError, UsageError
from omniqa.media.clip import Clip
from omniqa.models.decode_step import DecodeStep
from omniqa.pipeline.engine import OmniQA
from omniqa.pipeline.prefill import PrefillStage
from omniqa.pipeline.stats import StageClock, peak_rss_bytes
from omniqa.pruning import registry
from omniqa.pruning.methods.omnidrop.method import OmniDrop
from omniqa.runtime.generation_options import GenerationOptions
from tests.models.qwen2_5_omni.clips import make_clip
from tests.pruning.test_discovery import EXAMPLE

QUESTION = "What happens?"
ONCE = Rounds(repeats=1, warmup=0, new_tokens=4)


def small_clip(**lengths):
    """A corner of the picture, 24 tokens a grid, and all of the sound."""
    clip = make_clip(**lengths)
    return Clip.from_arrays(frames=clip.frames[:, :112, :168], waveform=clip.waveform)


@pytest.fixture(scope="module")
def clip():
    return small_clip(frames=8, seconds=3.0)


@pytest.fixture
def measure(qa, clip):
    """A report on the clip; by default of one round."""

    def call(methods, retentions, rounds=ONCE, cases=None, **options):
        cases = cases or make_cases(methods, retentions)
        return bench(qa, options.pop("clip", clip), QUESTION, cases, rounds=rounds, **options)

    return call


@pytest.fixture
def prefills(monkeypatch):
    """The methods that were prefilled with, in order."""
    seen, prefill = [], PrefillStage.prefill

    def watched(self, video, question, pruner, *more):
        seen.append((pruner.name, pruner.target))
        return prefill(self, video, question, pruner, *more)

    monkeypatch.setattr(PrefillStage, "prefill", watched)
    return seen


def by_name(report):
    return {(row.method, row.asked): row.measured for row in report.rows}


def test_full_tokens_agree_with_themselves_and_so_does_every_method_at_retention_1(measure):
    report = measure([], [1.0], cases=[Case(case.pruner, False) for case in make_cases([], [1.0])])
    assert {row.method for row in report.rows} == set(registry.methods())
    for row in report.rows:
        assert row.measured.kl == pytest.approx(0, abs=1e-9)
        assert row.measured.same_answer
        assert row.measured.achieved == 1.0
        assert row.note == ""


def test_an_instance_of_a_users_own_method_is_a_row(measure, qa, clip, tmp_path):
    (tmp_path / "mine.py").write_text(EXAMPLE, encoding="utf-8")
    mine = registry.create(f"{tmp_path / 'mine.py'}:Uniform", 0.25, at_least=4)
    got = by_name(measure([mine], []))[("uniform", 0.25)]
    answer = qa.ask(clip, QUESTION, mine, decoding=GenerationOptions(ONCE.new_tokens))
    assert (answer.method, got.answer) == ("uniform", answer.text)
    assert got.achieved == answer.retention.achieved == pytest.approx(0.25, abs=0.01)


def test_figures_equal_those_of_asking(measure, qa, clip):
    """The same prompt, method and model: retention, tokens and answer are those of `ask`."""
    report = measure(["omnidrop", "omnizip"], [0.4, 0.3])
    for (method, retention), got in by_name(report).items():
        answer = qa.ask(clip, QUESTION, method, retention, decoding=GenerationOptions(ONCE.new_tokens))
        tokens = answer.stats.tokens
        assert got.achieved == pytest.approx(answer.retention.achieved)
        assert (got.video_kept, got.audio_kept) == (tokens.video_kept, tokens.audio_kept)
        assert got.answer == answer.text
        assert (report.text_tokens, report.audio_tokens, report.video_tokens) == (
            tokens.text,
            tokens.audio,
            tokens.video,
        )


def test_kl_is_the_mean_along_full_tokens_answer_which_both_are_fed(measure, qa, clip):
    """Against each token computed on its own: a new prefill, the answer's tokens so far, one more step."""
    got = by_name(measure(["random"], [0.2]))[("random", 0.2)]
    video = qa.encode(clip)
    run = MethodRunner(qa, video, QUESTION, ONCE.new_tokens).run(registry.create("none", 1.0))
    answer = run.through_end(qa.model.end_tokens)
    assert len(answer) > 1

    def distribution(name, before):
        """Of the token after `before`."""
        result = qa.prefiller.prefill(video, QUESTION, registry.create(name, 0.2), 8, StageClock(qa.model.device))
        logits, step = result.result.logits, DecodeStep(qa.decoder, result.cache, result.layout.next_position)
        for token in before:
            logits = step(token)
        return logits.double().softmax(-1).tolist()

    divergences = []
    for place in range(len(answer)):
        full, random = (distribution(name, answer[:place]) for name in ("none", "random"))
        divergences.append(sum(p * math.log(p / q) for p, q in zip(full, random, strict=True)))
    assert got.kl == pytest.approx(sum(divergences) / len(answer), rel=1e-3)
    assert got.kl != pytest.approx(divergences[0], rel=0.01), "more than the first token's"
    assert got.kl > 0


def test_the_answer_is_compared_token_by_token(measure, qa, clip):
    got = by_name(measure(["random"], [0.2]))[("random", 0.2)]
    short = GenerationOptions(ONCE.new_tokens)
    full, pruned = (qa.ask(clip, QUESTION, name, 0.2, decoding=short).token_ids for name in ("none", "random"))
    assert got.same_answer == (full == pruned)
    assert got.first_difference == first_difference(full, pruned)


@pytest.mark.parametrize(
    ("full", "other", "place"),
    [
        ([1, 2], [1, 2], None),
        ([1, 2], [3, 2], 1),
        ([1, 2], [1, 3], 2),
        ([1, 2], [1], 2),
        ([1], [1, 2], 2),
        ([], [1], 1),
    ],
)
def test_answers_differ_where_the_tokens_do_or_one_ends(full, other, place):
    assert first_difference(full, other) == place


def test_kl_is_not_symmetric_and_never_negative():
    even, uneven = torch.zeros(2, dtype=torch.float64), torch.tensor([math.log(3), 0.0], dtype=torch.float64)
    assert kl_divergence(even, uneven) == pytest.approx(0.5 * math.log(4 / 3))
    assert kl_divergence(uneven, even) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    logits = torch.randn(1000, dtype=torch.float64)
    assert kl_divergence(logits, logits + 5) == pytest.approx(0, abs=1e-12)
    assert kl_divergence(logits, logits + 5) >= 0
    rows = torch.stack([even, uneven]), torch.stack([uneven, uneven])
    assert kl_divergence(*rows) == pytest.approx(0.25 * math.log(4 / 3)), "the mean over rows"


def test_runs_take_turns(measure, prefills):
    report = measure(["random", "omnidrop"], [0.5, 0.3], Rounds(repeats=1, warmup=1, new_tokens=2))
    turn = [("none", 1.0), ("random", 0.5), ("random", 0.3), ("omnidrop", 0.5), ("omnidrop", 0.3)]
    assert prefills == 3 * turn, "twice, then along full tokens' answer"
    assert [(row.method, row.asked) for row in report.rows] == turn


def test_the_clip_is_encoded_once_a_round_and_warm_ups_do_not_count(measure, monkeypatch):
    seconds = iter([100.0, 1.0, 3.0, 2.0])
    encode = OmniQA.encode

    def timed(self, *arguments, **options):
        encoded = encode(self, *arguments, **options)
        encoded.timing_s.update(dict.fromkeys(encoded.timing_s, 0.0) | {"vision_encoder": next(seconds)})
        return encoded

    monkeypatch.setattr(OmniQA, "encode", timed)
    report = measure(["random"], [0.5], Rounds(repeats=3, warmup=1, new_tokens=1))
    assert next(seconds, None) is None
    assert report.encoding["vision_encoder"] == report.encoding["total"] == Spread(2.0, 1.0, 3.0)
    assert set(report.encoding) == {"decode", "preprocess", "vision_encoder", "audio_encoder", "total"}
    got = report.rows[1].measured
    assert report.time_to_first_token(got).median == pytest.approx(2.0 + got.first_token.median)


def test_a_retention_out_of_reach_is_measured_at_the_nearest_once_and_says_so(measure, prefills):
    report = measure(["fastv", "dycoke"], [0.2, 0.1])
    rows = {(row.method, row.asked): row for row in report.rows}
    floor = 2 / 6  # of fastv in six layers
    for asked in (0.2, 0.1):
        row = rows["fastv", asked]
        assert row.target == pytest.approx(floor)
        assert row.measured.achieved == pytest.approx(floor, abs=0.002)
        assert "no nearer than 0.3333" in row.note
    assert rows["fastv", 0.2].measured == rows["fastv", 0.1].measured
    measured = ["none", "fastv", "dycoke"]
    assert [name for name, _ in prefills] == 2 * measured


def test_a_floor_that_only_the_tokens_tell_is_found_out_too(measure):
    """dash without sound keeps 0.65 at most; its plan does not know."""
    report = measure(["dash"], [0.9], clip=small_clip(frames=8))
    assert report.rows[1].asked == 0.9
    assert report.rows[1].measured.achieved < 0.7
    assert "dash comes no nearer" in report.rows[1].note


def test_a_method_that_can_not_run_is_left_out_unless_it_was_asked_for(measure):
    refused = OmniDrop(0.5, schedule="paper")
    report = measure([], [], cases=[*make_cases(["random"], [0.5]), Case(refused, required=False)])
    assert [row.method for row in report.rows] == ["none", "random"]
    assert [out.method for out in report.left_out] == ["omnidrop"]
    assert "paper" in report.left_out[0].reason
    with pytest.raises(UsageError, match="paper"):
        measure([], [], cases=[*make_cases(["random"], [0.5]), Case(refused, required=True)])


def test_what_does_not_fit_has_a_row_without_figures(measure, monkeypatch):
    """Full tokens need more memory than a method does: that is when one prunes."""
    run = MethodRunner.run

    def small(self, pruner):
        if pruner.target > 0.4:
            raise OutOfMemoryError("too small")
        return run(self, pruner)

    monkeypatch.setattr(MethodRunner, "run", small)
    report = measure(["random"], [0.5, 0.3])
    assert [(row.measured is None, row.note) for row in report.rows] == [
        (True, "too small"),
        (True, "too small"),
        (False, ""),
    ]
    got = report.rows[2].measured
    assert (got.kl, got.same_answer, report.prefill_speedup(got), report.first_token_speedup(got)) == (None,) * 4
    with pytest.raises(OutOfMemoryError, match="too small"):
        measure(["random"], [0.5])


def test_every_run_generates_equally_many_tokens(qa, clip):
    """Past the answer's end as well, for the time of a token; what comes after the end is no part of the answer."""
    run = MethodRunner(qa, qa.encode(clip), QUESTION, 6).run(registry.create("none", 1.0))
    tokens = run.answer.token_ids
    assert len(tokens) == 6
    assert run.tokens(frozenset()) == tokens
    assert run.tokens(frozenset({tokens[2]})) == tokens[: tokens.index(tokens[2])]
    assert run.answer.stats.seconds_per_token > 0


def test_one_token_has_no_time_for_the_tokens_after_it(measure):
    got = measure(["random"], [0.5], Rounds(repeats=1, warmup=0, new_tokens=1)).rows[1].measured
    assert got.per_token is None


def test_a_rule_inside_the_encoder_has_an_encoding_of_its_own(measure, qa, clip):
    early = registry.create("omnidrop", 0.3, vision_block=0)
    cases = [Case(registry.create("none", 1.0), False), Case(early, True), Case(registry.create("omnidrop", 0.3), True)]
    report = measure([], [], cases=cases, rounds=Rounds(repeats=1, warmup=0, new_tokens=4))
    full, inside, after = (row.measured for row in report.rows)
    assert full.encoding == after.encoding == report.encoding["total"] != inside.encoding
    assert report.time_to_first_token(inside) == inside.first_token.after(inside.encoding.median)
    answer = qa.ask(clip, QUESTION, early, decoding=GenerationOptions(4, stop_at_end=False))
    assert inside.video_kept == answer.stats.tokens.video_kept
    assert inside.achieved == pytest.approx(answer.retention.achieved)


def test_speedups_are_against_full_tokens_in_the_same_run(measure):
    report = measure(["random"], [0.2], Rounds(repeats=2, warmup=0, new_tokens=1))
    full, got = (row.measured for row in report.rows)
    assert report.prefill_speedup(full) == report.first_token_speedup(full) == 1.0
    assert report.prefill_speedup(got) == pytest.approx(full.pruned_prefill.median / got.pruned_prefill.median)
    assert got.pruned_prefill.low >= got.input_pruning.low + got.prefill.low


def test_the_peak_of_memory_is_of_the_row_alone(qa, clip):
    if not reset_rss_peak():
        pytest.skip("this system can't start the count of resident memory anew")
    ballast = torch.ones(200 * 2**20, dtype=torch.uint8)
    high = peak_rss_bytes()
    del ballast
    run = MethodRunner(qa, qa.encode(clip), QUESTION, 1).run(registry.create("random", 0.3))
    assert run.peak_rss_bytes < high - 100 * 2**20
    assert run.answer.stats.peak_device_bytes is None


def test_where_the_peak_can_not_be_reset_there_is_none(measure, monkeypatch, tmp_path):
    monkeypatch.setattr("omniqa.bench.run.CLEAR_REFS", tmp_path / "no" / CLEAR_REFS.name)
    assert measure(["random"], [0.5]).rows[0].measured.peak_rss_bytes is None


def test_the_spread_is_the_median_the_lowest_and_the_highest():
    assert Spread.of([3.0, 1.0, 2.0, 9.0]) == Spread(2.5, 1.0, 9.0)
