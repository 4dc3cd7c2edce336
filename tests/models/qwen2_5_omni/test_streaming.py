"""Of a long clip asked about by one method, video tokens are freed while it is encoded, and nothing else changes."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from omniqa.cache.encodings import EncodingCache
from omniqa.cache.folder import CacheFolder
from omniqa.errors import UsageError
from omniqa.media.clip import sample
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import STANDARD
from omniqa.models.qwen2_5_omni import streaming, vision
from omniqa.models.qwen2_5_omni.streaming import StreamingEncoder
from omniqa.models.qwen2_5_omni.vision import GridStream
from omniqa.pipeline import encode_for
from omniqa.pipeline.engine import OmniQA
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.ttm import TemporalMerge
from omniqa.runtime.generation_options import GenerationOptions
from tests.media.clips import Audio, Video, spoil, tone, write_clip
from tests.near import near
from tests.pruning.clip import entered, media_tokens

ROWS, COLS = 6, 8
HW = ROWS * COLS
SAMPLING = ClipOptions(fps=10, min_pixels=STANDARD.token_pixels**2, max_pixels=HW * STANDARD.token_pixels**2)
SHORT = GenerationOptions(max_new_tokens=2)
QUESTIONS = ("What is seen?", "And at the end?")
METHODS = {
    "dycoke": ("dycoke", 0.6, {}),
    "dycoke, full": ("dycoke", 1.0, {}),
    "dycoke, rho": ("dycoke", 0.6, {"rho": 1.0}),
    "omnidrop": ("omnidrop", 0.3, {}),
    "omnidrop, thinned": ("omnidrop", 0.05, {}),
    "omnidrop, input level alone": ("omnidrop", 0.4, {"plp": False}),
    "omnidrop, audio guidance": ("omnidrop", 0.3, {"guidance": "audio"}),
}
THINNED = {"omnidrop, thinned", "omnidrop, input level alone"}


def pictures(numbers):
    """One random picture a number."""
    shape = (ROWS * STANDARD.token_pixels // 4, COLS * STANDARD.token_pixels // 4, 3)
    small = [np.random.default_rng(number).integers(0, 256, shape, np.uint8) for number in numbers]
    return [picture.repeat(4, 0).repeat(4, 1) for picture in small]


def pair(number):
    return np.stack(pictures([2 * number, 2 * number + 1]))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """23 grids and 3 s of sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    return write_clip(path, Video(pictures(range(46)), 10), Audio(tone(3.0)))


@pytest.fixture
def long(monkeypatch):
    """Every clip counts as long; the vision encoder's batches are of three grids, and two are remembered."""
    monkeypatch.setattr(encode_for, "HELD_WHOLE", 0)
    monkeypatch.setattr(vision, "BATCH_PATCHES", 3 * 4 * HW)
    monkeypatch.setattr(streaming, "HELD_TOKENS", 2 * HW)


@pytest.fixture
def read(qa, monkeypatch):
    """The rule by which each reading of a file was pruned."""
    rules, encode_file = [], qa.encoder.encode_file

    def spy(path, sampling, progress, rule=None, attended=False):
        rules.append(rule)
        return encode_file(path, sampling, progress, rule, attended)

    monkeypatch.setattr(qa.encoder, "encode_file", spy)
    return rules


def ask(qa, video, pruner, **named):
    return list(qa.ask_all(video, QUESTIONS, pruner, decoding=SHORT, **named))


def told(answer):
    """All but times, memory and warnings."""
    known = answer.to_dict() | {"timing_s": None, "memory": None}
    return known | {"media": known["media"] | {"warnings": None}}


def assert_same(answers, expected):
    assert list(map(told, answers)) == near(list(map(told, expected)))
    for one, other in zip(answers, expected, strict=True):
        assert one.token_ids == other.token_ids
        assert np.array_equal(one.trace.alive, other.trace.alive)
        np.testing.assert_allclose(one.trace.score, other.trace.score, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("grids", [1, 3, 4, 30, 131])
def test_windows_choose_what_the_whole_video_would(grids):
    video = torch.randn(grids, 12, 16, generator=torch.Generator().manual_seed(grids))
    rule = TemporalMerge.at(0.7, 12)
    pieces = [rule.keep(piece) for piece in video.split(3 * rule.window)]
    assert torch.cat(pieces).equal(rule.keep(video))
    assert tuple(rule.keep(video).sum(1).tolist()) == rule.counts(grids, 12)


@pytest.mark.parametrize("name", registry.methods())
def test_a_method_that_chooses_early_keeps_what_it_would_keep_late(name):
    pruner = registry.create(name, 0.5)
    tokens = media_tokens(ClipTokens(40, 10, 20), pruner=pruner)
    plan = pruner.plan(tokens.counts, 14)
    rule = pruner.vision_rule(plan)
    if rule is None:
        return
    keep = tokens.kept_by(rule)
    assert keep.sum() == sum(rule.counts(10, 20))
    early = replace(tokens, video=tokens.video[keep], rule=rule, video_keep=keep)
    assert early.counts == tokens.counts
    assert entered(pruner, early, plan).equal(entered(pruner, tokens, plan))


def test_what_another_rule_freed_is_not_guessed():
    tokens = media_tokens(ClipTokens(0, 4, 10))
    keep = tokens.kept_by(TemporalMerge(5))
    early = replace(tokens, video=tokens.video[keep], rule=TemporalMerge(5), video_keep=keep)
    assert early.kept_by(TemporalMerge(5)) is keep
    with pytest.raises(ValueError, match="unknown"):
        early.kept_by(TemporalMerge(6))
    with pytest.raises(ValueError, match="together"):
        replace(tokens, rule=TemporalMerge(5))


@pytest.mark.parametrize("method", METHODS)
def test_the_tokens_and_the_answers_are_those_of_the_whole_clip(qa, file, method, long, read):
    name, retention, options = METHODS[method]
    pruner = registry.create(name, retention, **options)
    whole = qa.encode(file, SAMPLING)
    expected = ask(qa, whole, pruner)
    early = qa.encode(file, SAMPLING, method=pruner)
    assert early.video.equal(whole.video[early.keep])
    # Thinning takes from what TTM kept, once all is there.
    thinned = len(early.video) - expected[0].stats.tokens.video_kept
    assert thinned > 0 if method in THINNED else thinned == 0
    assert_same(ask(qa, file, pruner, sampling=SAMPLING), expected)
    assert [rule is None for rule in read] == [True, False, False]


def test_few_grids_are_held_however_long_the_clip(qa, long, monkeypatch):
    held, taken = [], []
    grids = StreamingEncoder(qa.vision_encoder, 4, lambda window: (taken.append(window), held.append(grids.held)))
    for number in range(40):
        grids.push(pair(number))
        held.append(grids.held)
    rest = grids.finish()
    assert max(held) <= 3 + 3 + 2  # a batch, what waits for its window, and those that are remembered
    assert {len(window) for window in taken} == {4}
    whole = GridStream(qa.vision_encoder)
    for number in range(40):
        whole.push(pair(number))
    assert torch.cat([*taken, rest]).equal(whole.finish())


def test_a_picture_that_stands_still_for_long_is_encoded_once_and_handed_on_window_by_window(qa, long):
    taken = []
    grids = StreamingEncoder(qa.vision_encoder, 4, taken.append)
    for _ in range(99):
        grids.push(pair(0))
    rest = grids.finish()
    assert (grids.grids, grids.grids_reused, grids.held) == (99, 98, 1)
    assert ({len(window) for window in taken}, len(rest)) == ({4}, 3)
    assert all(grid.equal(rest[0]) for window in taken for grid in window)


def test_a_picture_that_returns_is_encoded_again_once_it_is_forgotten(qa, long):
    order, taken, whole = [0, 1, 0, 2, 3, 4, 5, 6, 7, 8, 0, 1, 8, 2], [], GridStream(qa.vision_encoder)
    grids = StreamingEncoder(qa.vision_encoder, 4, taken.append)
    for number in order:
        grids.push(pair(number))
        whole.push(pair(number))
    assert (torch.cat([*taken, grids.finish()]) - whole.finish()).abs().max() <= 1e-5
    assert 2 <= grids.grids_reused < whole.grids_reused == 5


def lie(monkeypatch, **wrong):
    """The file says something else than it holds."""
    expected = encode_for.estimate_tokens

    def claim(info, sampling, geometry):
        said = expected(info, sampling)
        return ClipTokens(wrong.get("audio", said.n_audio), wrong.get("grids", said.grids), said.tokens_per_grid)

    monkeypatch.setattr(encode_for, "estimate_tokens", claim)


@pytest.mark.parametrize("wrong", [{"audio": 40}, {"audio": 110}, {"audio": 300}])
def test_a_file_whose_wrong_claim_misses_the_retention_is_encoded_again(qa, file, long, read, monkeypatch, wrong):
    pruner = registry.create("dycoke", 0.6)
    expected = ask(qa, qa.encode(file, SAMPLING), pruner)
    del read[:]
    lie(monkeypatch, **wrong)
    answers = ask(qa, file, pruner, sampling=SAMPLING)
    assert_same(answers, expected)
    estimated, real = read
    assert estimated != real is not None
    assert any("encoded twice" in warning for warning in answers[0].stats.media.warnings)


@pytest.mark.parametrize("wrong", [{"audio": 40}, {"grids": 3}, {"grids": 60}])
@pytest.mark.parametrize("method", ["dycoke", "omnidrop"])
def test_a_wrong_claim_stands_as_long_as_the_retention_is_met(qa, file, long, read, monkeypatch, wrong, method):
    """omnidrop's layers make up for what its input level keeps; dycoke's rule is all that it has."""
    pruner = registry.create(method, 0.62 if method == "dycoke" else 0.5)
    lie(monkeypatch, **wrong)
    answer = ask(qa, file, pruner, sampling=SAMPLING)[0]
    assert answer.retention.achieved == pytest.approx(pruner.retention, abs=0.01)
    warned = any("encoded twice" in warning for warning in answer.stats.media.warnings)
    assert len(read) == 1 + warned
    assert not (warned and method == "omnidrop")


def test_a_wrong_claim_that_changes_nothing_costs_nothing(qa, file, long, read, monkeypatch):
    lie(monkeypatch, audio=76)
    assert not ask(qa, file, registry.create("dycoke", 0.6, rho=0.5), sampling=SAMPLING)[0].stats.media.warnings
    assert len(read) == 1


def test_a_file_that_changes_while_it_is_read_is_decoded_before_it_is_counted_in_the_end(
    qa, file, long, monkeypatch, tmp_path
):
    changing, pruner, reads = tmp_path / "clip.mkv", registry.create("dycoke", 0.6), []
    shutil.copy(file, changing)
    encode_file = qa.encoder.encode_file

    def growing(path, sampling, progress, rule=None, attended=False):
        if len(reads) == 1:
            write_clip(changing, Video(pictures(range(60)), 10), Audio(tone(1.0)))
        reads.append(rule)
        return encode_file(path, sampling, progress, rule, attended)

    lie(monkeypatch, audio=110)
    monkeypatch.setattr(qa.encoder, "encode_file", growing)
    answers = ask(qa, changing, pruner, sampling=SAMPLING)
    assert [rule is None for rule in reads] == [False, False]
    assert_same(answers, ask(qa, qa.encode(changing, SAMPLING), pruner))


def test_only_a_method_with_a_rule_frees_tokens(qa, file, long):
    assert qa.encode(file, SAMPLING).rule is None
    assert qa.encode(file, SAMPLING, method=registry.create("omnizip", 0.6)).rule is None
    assert qa.encode(file, SAMPLING, method=registry.create("dycoke", 0.6)).rule is not None


def test_a_clip_at_hand_is_pruned_like_its_file(qa, file, long):
    pruner = registry.create("dycoke", 0.6)
    clip = sample(file, SAMPLING)
    early, expected = qa.encode(clip, method=pruner), qa.encode(file, SAMPLING, method=pruner)
    assert (early.rule, early.keep.tolist()) == (expected.rule, expected.keep.tolist())
    assert early.video.equal(expected.video)


def test_a_rule_and_the_cache_work_together(qa, file, tmp_path, long):
    cached = OmniQA(qa.name, qa.model, cache=EncodingCache(CacheFolder(tmp_path, 10**9)))
    low, high = registry.create("dycoke", 0.6), registry.create("dycoke", 0.8)
    for entries, method in ((1, low), (1, low), (2, high), (3, None), (3, None), (3, low)):
        expected, found = (one.encode(file, SAMPLING, method=method) for one in (qa, cached))
        assert len(list(tmp_path.glob("*.safetensors"))) == entries
        assert found.rule == expected.rule
        assert found.video.equal(expected.video)
        assert found.keep is None if method is None else found.keep.equal(expected.keep)
    assert "cache" in found.timing_s
    assert "vision_encoder" not in found.timing_s
    assert_same(ask(cached, file, low, sampling=SAMPLING), ask(qa, file, low, sampling=SAMPLING))


def test_a_sampled_clip_is_found_in_the_cache_by_its_rule(qa, file, tmp_path, long):
    cached = OmniQA(qa.name, qa.model, cache=EncodingCache(CacheFolder(tmp_path, 10**9)))
    pruner = registry.create("dycoke", 0.6)
    clip = sample(file, SAMPLING)
    first, again = (cached.encode(clip, method=pruner) for _ in range(2))
    assert again.video.equal(first.video)
    assert "vision_encoder" not in again.timing_s


def test_a_rule_and_reuse_of_static_parts_work_together(qa, file, long):
    still, pruner = OmniQA(qa.name, qa.model, reuse_static=1.0), registry.create("dycoke", 0.6)
    whole, early = still.encode(file, SAMPLING), still.encode(file, SAMPLING, method=pruner)
    assert early.video.equal(whole.video[early.keep])


def test_a_clip_whose_tokens_were_freed_for_another_method_is_a_usage_error(qa, file, long):
    video = qa.encode(file, SAMPLING, method=registry.create("dycoke", 0.6))
    assert ask(qa, video, registry.create("dycoke", 0.6))
    for other in (registry.create("dycoke", 0.8), registry.create("omnizip", 0.5), registry.create("none", 1.0)):
        with pytest.raises(UsageError, match="encode it with that method"):
            ask(qa, video, other)


def test_a_short_clip_is_held_whole(qa, file):
    assert qa.encode(file, SAMPLING, method=registry.create("dycoke", 0.6)).rule is None


def test_a_picture_that_breaks_off_leaves_the_sound(qa, file, long, tmp_path):
    broken = spoil(shutil.copy(file, tmp_path / "broken.mkv"), "video")
    pruner = registry.create("dycoke", 1.0)
    assert_same(ask(qa, broken, pruner, sampling=SAMPLING), ask(qa, qa.encode(broken, SAMPLING), pruner))


def test_a_picture_alone_or_a_sound_alone(qa, file, long):
    for part in ({"audio": False}, {"video": False}):
        sampling = ClipOptions(
            fps=10, min_pixels=STANDARD.token_pixels**2, max_pixels=HW * STANDARD.token_pixels**2, **part
        )
        pruner = registry.create("dycoke", 1.0 if "video" in part else 0.5)
        assert_same(ask(qa, file, pruner, sampling=sampling), ask(qa, qa.encode(file, sampling), pruner))


def test_a_rule_with_a_block_prunes_short_clips_too_and_the_layers_land_on_r(qa, file, read):
    for name, retention in (("omnidrop", 0.3), ("dycoke", 0.6)):
        pruner = registry.create(name, retention, vision_block=1)
        video = qa.encode(file, SAMPLING, method=pruner)
        assert video.rule == read[-1]
        assert video.rule.block == 1
        answer = ask(qa, video, pruner)[0]
        assert answer.retention.achieved == pytest.approx(retention, abs=0.01)
        assert answer.stats.tokens.video_kept == len(video.video) == sum(video.rule.counts(23, HW))
        assert_same(ask(qa, file, pruner, sampling=SAMPLING), ask(qa, video, pruner))
        assert_same(ask(qa, sample(file, SAMPLING), pruner), ask(qa, video, pruner))


def test_a_block_at_the_encoders_depth_gives_what_none_gives(qa, file):
    late, early = (registry.create("omnidrop", 0.3, vision_block=block) for block in (None, qa.model.vision_depth))
    assert_same(ask(qa, file, early, sampling=SAMPLING), ask(qa, file, late, sampling=SAMPLING))


def test_an_encoding_belongs_to_its_rule(qa, file):
    early = registry.create("dycoke", 0.6, vision_block=1)
    others = (registry.create("dycoke", 0.6), registry.create("dycoke", 0.6, vision_block=0))
    video, whole = qa.encode(file, SAMPLING, method=early), qa.encode(file, SAMPLING)
    for clip, pruner in ((whole, early), *((video, other) for other in others)):
        with pytest.raises(UsageError, match="encode it with that method"):
            ask(qa, clip, pruner)


def test_a_block_that_the_encoder_lacks_is_a_usage_error(qa, file):
    pruner = registry.create("dycoke", 0.6, vision_block=qa.model.vision_depth + 1)
    with pytest.raises(UsageError, match=f"0 to {qa.model.vision_depth}"):
        ask(qa, file, pruner, sampling=SAMPLING)
    for name in ("dycoke", "omnidrop"):
        with pytest.raises(UsageError, match="negative"):
            registry.create(name, 0.6, vision_block=-1)


def test_the_cache_keeps_each_rules_encoding_and_finds_no_other(qa, file, tmp_path):
    cached = OmniQA(qa.name, qa.model, cache=EncodingCache(CacheFolder(tmp_path, 10**9)))
    early, other = (registry.create("dycoke", 0.6, vision_block=block) for block in (0, 1))
    clip = sample(file, SAMPLING)
    for video in (clip, file):
        sampling = SAMPLING if video is file else None
        before = len(list(tmp_path.glob("*.safetensors")))
        for entries, method in ((1, None), (2, early), (3, other), (3, early), (3, None), (3, other)):
            found = cached.encode(video, sampling, method=method)
            assert len(list(tmp_path.glob("*.safetensors"))) - before == entries
            assert found.video.equal(qa.encode(video, sampling, method=method).video)
        assert "vision_encoder" not in found.timing_s


def test_an_entry_under_another_rules_key_is_refused(qa, file, tmp_path):
    cache = EncodingCache(CacheFolder(tmp_path, 10**9))
    cached = OmniQA(qa.name, qa.model, cache=cache)
    early, other = (registry.create("dycoke", 0.6, vision_block=block) for block in (0, 1))
    cached.encode(file, SAMPLING, method=early)
    (entry,) = tmp_path.glob("*.safetensors")
    cached.encode(file, SAMPLING, method=other)
    (foreign,) = set(tmp_path.glob("*.safetensors")) - {entry}
    shutil.copy(entry, foreign)
    again = cached.encode(file, SAMPLING, method=other)
    assert again.video.equal(qa.encode(file, SAMPLING, method=other).video)
    assert any("damaged" in warning for warning in again.summary.warnings)
