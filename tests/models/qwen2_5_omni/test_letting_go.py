"""Of a long file asked about by one method, video tokens leave while it is encoded, and nothing else changes."""

import shutil

import numpy as np
import pytest
import torch

from omniqa.cache.encodings import EncodingCache
from omniqa.cache.folder import CacheFolder
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import STANDARD
from omniqa.models.qwen2_5_omni import passing, vision
from omniqa.models.qwen2_5_omni.passing import PassingGrids
from omniqa.models.qwen2_5_omni.vision import GridStream
from omniqa.pipeline import engine
from omniqa.pipeline.engine import OmniQA
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.ttm import TemporalMerge
from omniqa.runtime.generation_options import GenerationOptions
from tests.media.clips import Audio, Video, spoil, tone, write_clip
from tests.near import near
from tests.pruning.clip import media_tokens

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
    monkeypatch.setattr(engine, "HELD_WHOLE", 0)
    monkeypatch.setattr(vision, "BATCH_PATCHES", 3 * 4 * HW)
    monkeypatch.setattr(passing, "HELD_TOKENS", 2 * HW)


@pytest.fixture
def read(qa, monkeypatch):
    """By what each reading of a file let tokens go."""
    choices, encode_file = [], qa.encoder.encode_file

    def spy(path, sampling, progress, choice=None):
        choices.append(choice)
        return encode_file(path, sampling, progress, choice)

    monkeypatch.setattr(qa.encoder, "encode_file", spy)
    return choices


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
    choice = TemporalMerge.at(0.7, 12)
    pieces = [choice.keep(piece) for piece in video.split(3 * choice.window)]
    assert torch.cat(pieces).equal(TemporalMerge.at(0.7, video.shape[1]).keep(video))


@pytest.mark.parametrize("name", registry.methods())
def test_a_method_that_chooses_early_keeps_what_it_would_keep_late(name):
    pruner = registry.create(name, 0.5)
    tokens = media_tokens(ClipTokens(40, 10, 20), pruner=pruner)
    plan = pruner.plan(tokens.counts, 8)
    choice = pruner.video_choice(plan)
    if choice is None:
        return
    keep = tokens.chosen_by(choice)
    parts = {field: getattr(tokens, field) for field in tokens.__dataclass_fields__}
    early = type(tokens)(**parts | {"video": tokens.video[keep], "chosen": chosen(choice, keep)})
    assert early.counts == tokens.counts
    assert pruner.prune_input(early, plan).keep.equal(pruner.prune_input(tokens, plan).keep)


def chosen(choice, keep):
    from omniqa.pruning.contract import ChosenVideo

    return ChosenVideo(choice, keep)


def test_what_another_choice_let_go_of_is_not_guessed():
    tokens = media_tokens(ClipTokens(0, 4, 10))
    keep = tokens.chosen_by(TemporalMerge(5))
    early = type(tokens)(
        tokens.modality, tokens.chunk, 10, tokens.video[keep], tokens.audio, chosen=chosen(TemporalMerge(5), keep)
    )
    assert early.chosen_by(TemporalMerge(5)) is keep
    with pytest.raises(ValueError, match="unknown"):
        early.chosen_by(TemporalMerge(6))


@pytest.mark.parametrize("method", METHODS)
def test_the_tokens_and_the_answers_are_those_of_the_whole_clip(qa, file, method, long, read):
    name, retention, options = METHODS[method]
    pruner = registry.create(name, retention, **options)
    whole = qa.encode(file, SAMPLING)
    expected = ask(qa, whole, pruner)
    early = qa._encode_for(pruner, file, SAMPLING, lambda stage, share: None)
    assert early.video.equal(whole.video[early.chosen.keep])
    # Thinning takes from what TTM kept, once all is there.
    thinned = len(early.video) - expected[0].stats.tokens.video_kept
    assert thinned > 0 if method in THINNED else thinned == 0
    assert_same(ask(qa, file, pruner, sampling=SAMPLING), expected)
    assert [choice is None for choice in read] == [True, False, False]


def test_few_grids_are_held_however_long_the_clip(qa, long, monkeypatch):
    held, taken = [], []
    grids = PassingGrids(qa.vision_encoder, 4, lambda window: (taken.append(window), held.append(grids.held)))
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
    grids = PassingGrids(qa.vision_encoder, 4, taken.append)
    for _ in range(99):
        grids.push(pair(0))
    rest = grids.finish()
    assert (grids.grids, grids.grids_reused, grids.held) == (99, 98, 1)
    assert ({len(window) for window in taken}, len(rest)) == ({4}, 3)
    assert all(grid.equal(rest[0]) for window in taken for grid in window)


def test_a_picture_that_returns_is_encoded_again_once_it_is_forgotten(qa, long):
    order, taken, whole = [0, 1, 0, 2, 3, 4, 5, 6, 7, 8, 0, 1, 8, 2], [], GridStream(qa.vision_encoder)
    grids = PassingGrids(qa.vision_encoder, 4, taken.append)
    for number in order:
        grids.push(pair(number))
        whole.push(pair(number))
    assert (torch.cat([*taken, grids.finish()]) - whole.finish()).abs().max() <= 1e-5
    assert 2 <= grids.grids_reused < whole.grids_reused == 5


def lie(monkeypatch, **wrong):
    """The file says something else than it holds."""
    expected = engine.estimate_tokens

    def claim(info, sampling, geometry):
        said = expected(info, sampling)
        return ClipTokens(wrong.get("audio", said.n_audio), wrong.get("grids", said.grids), said.tokens_per_grid)

    monkeypatch.setattr(engine, "estimate_tokens", claim)


@pytest.mark.parametrize("wrong", [{"audio": 40}, {"audio": 110}, {"grids": 60}])
def test_a_file_that_does_not_hold_what_it_says_is_encoded_again(qa, file, long, read, monkeypatch, wrong):
    pruner = registry.create("dycoke", 0.6)
    expected = ask(qa, qa.encode(file, SAMPLING), pruner)
    del read[:]
    lie(monkeypatch, **wrong)
    answers = ask(qa, file, pruner, sampling=SAMPLING)
    assert_same(answers, expected)
    foreseen, real = read
    assert foreseen != real is not None
    assert any("encoded twice" in warning for warning in answers[0].stats.media.warnings)


def test_a_wrong_claim_that_changes_nothing_costs_nothing(qa, file, long, read, monkeypatch):
    lie(monkeypatch, audio=76)
    assert not ask(qa, file, registry.create("dycoke", 0.6, rho=0.5), sampling=SAMPLING)[0].stats.media.warnings
    assert len(read) == 1


def test_a_file_that_changes_while_it_is_read_is_held_whole_in_the_end(qa, file, long, monkeypatch, tmp_path):
    changing, pruner, reads = tmp_path / "clip.mkv", registry.create("dycoke", 0.6), []
    shutil.copy(file, changing)
    encode_file = qa.encoder.encode_file

    def growing(path, sampling, progress, choice=None):
        if len(reads) == 1:
            write_clip(changing, Video(pictures(range(60)), 10), Audio(tone(1.0)))
        reads.append(choice)
        return encode_file(path, sampling, progress, choice)

    lie(monkeypatch, audio=110)
    monkeypatch.setattr(qa.encoder, "encode_file", growing)
    answers = ask(qa, changing, pruner, sampling=SAMPLING)
    assert [choice is None for choice in reads] == [False, False, True]
    assert_same(answers, ask(qa, qa.encode(changing, SAMPLING), pruner))


def test_nothing_is_let_go_of_that_something_else_may_need(qa, file, tmp_path, long):
    pruner = registry.create("dycoke", 0.6)
    silent = lambda stage, share: None  # noqa: E731
    cached = OmniQA(qa.name, qa.model, cache=EncodingCache(CacheFolder(tmp_path, 10**9)))
    still = OmniQA(qa.name, qa.model, reuse_static=1.0)
    for other in (cached, still):
        assert other._encode_for(pruner, file, SAMPLING, silent).chosen is None
    assert qa.encode(file, SAMPLING).chosen is None
    assert qa._encode_for(registry.create("omnizip", 0.6), file, SAMPLING, silent).chosen is None
    assert qa._encode_for(pruner, file, SAMPLING, silent).chosen is not None


def test_a_short_clip_is_held_whole(qa, file):
    assert qa._encode_for(registry.create("dycoke", 0.6), file, SAMPLING, lambda stage, share: None).chosen is None


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
