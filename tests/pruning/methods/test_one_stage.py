"""random, fastv, dycoke, omnizip and dash: what survives, and how it is changed, is what the slow reading says."""

import dataclasses
import pickle

import pytest
import torch

from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning import ops, registry
from omniqa.pruning.budget import ClipTokens, Unreachable, nearest
from omniqa.pruning.contract import AudioAttention, Scores
from omniqa.pruning.interleave import interleave
from omniqa.pruning.methods.omnizip import chunk_rates
from tests.pruning import reference
from tests.pruning.clip import entered, media_tokens, run_layers

LAYERS = 10
CLIPS = {  # counts, and how media_tokens spreads them
    "both": (ClipTokens(60, 9, 12), {}),
    "tail chunk": (ClipTokens(83, 9, 20), {"chunks": 5}),
    "one chunk": (ClipTokens(40, 5, 16), {"chunks": 1}),
    "two chunks": (ClipTokens(70, 5, 16), {"chunks": 2}),
    "audio ends early": (ClipTokens(64, 8, 14), {"chunks": 8, "audio_chunks": 3}),
    "audio outlasts video": (ClipTokens(80, 1, 30), {"chunks": 6}),
    "no audio": (ClipTokens(0, 7, 12), {}),
    "no video": (ClipTokens(90, 0, 0), {}),
    "no audio, one grid": (ClipTokens(0, 1, 30), {}),
    "grids of one token": (ClipTokens(45, 30, 1), {}),
    "grids of two tokens": (ClipTokens(35, 40, 2), {"chunks": 7}),
    "hardly any audio": (ClipTokens(3, 6, 16), {}),
    "one token": (ClipTokens(1, 0, 0), {"chunks": 1}),
}
RATIOS = [{"R": 0.2}, {"R": 0.5}, {"R": 0.8}] + [{"R": 0.5, "rho_v": rho} for rho in (0.0, 0.4, 0.75, 0.9, 1.0)]
OTHER_OPTIONS = [
    {"g": 0},
    {"g": 1},
    {"g": 50},
    {"anchors": 0.0},
    {"anchors": 0.3},
    {"rho_audio": 0.0, "rho_v": 0.5},
    {"rho_audio": 1.0},
]


def clip(name, seed=0):
    counts, spread = CLIPS[name]
    return media_tokens(counts, seed=seed, **spread)


def enter(name, tokens, R, **options):
    """(indices, embeddings) that enter layer 0; None where R is out of reach."""
    method = registry.create(name, R, **options)
    try:
        selected = method.prune_input(tokens, method.plan(tokens.counts, LAYERS))
    except Unreachable:
        return None
    index, embeddings = interleave(selected, tokens)
    changed = selected.video_embeddings is not None or selected.audio_embeddings is not None
    return index.tolist(), embeddings if changed else None


def own_embeddings(tokens):
    whole = torch.empty(len(tokens.modality), tokens.audio.shape[1])
    whole[tokens.modality == VIDEO], whole[tokens.modality == AUDIO] = tokens.video, tokens.audio
    return whole


def slow_enter(name, tokens, R, lo=None, hi=None, **options):
    modality = [int(kind == AUDIO) for kind in tokens.modality]
    parts = tokens.video.tolist(), tokens.audio.tolist(), tokens.audio_attention.tolist()
    if name == "omnizip":
        bounds = () if lo is None else (lo, hi)
        return reference.omnizip(
            modality, tokens.chunk.tolist(), tokens.tokens_per_grid, *parts, R, bounds=bounds, **options
        )
    return reference.dash(modality, tokens.tokens_per_grid, *parts, R, **options)


def check_against_the_slow_reading(name, tokens, **options):
    fast, slow = enter(name, tokens, **options), slow_enter(name, tokens, **options)
    if slow is None:
        assert fast is None
        return
    kept, changed = slow
    assert fast is not None
    assert fast[0] == kept
    expected = own_embeddings(tokens)
    for index, embedding in changed.items():
        expected[index] = torch.tensor(embedding)
    if fast[1] is None:
        assert not changed
    else:
        torch.testing.assert_close(fast[1], expected[torch.tensor(kept, dtype=torch.long)], rtol=1e-5, atol=1e-6)


# --- omnizip and dash against the slow reading ---


@pytest.mark.parametrize("options", RATIOS, ids=str)
@pytest.mark.parametrize("shape", CLIPS)
@pytest.mark.parametrize("name", ["omnizip", "dash"])
def test_what_enters_and_how_it_is_merged(name, shape, options):
    check_against_the_slow_reading(name, clip(shape), **options)


@pytest.mark.parametrize("options", OTHER_OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["omnizip", "dash"])
def test_the_other_options(name, options):
    check_against_the_slow_reading(name, clip("tail chunk", seed=1), R=0.4, **options)


@pytest.mark.parametrize("options", [{"R": 0.4}, {"R": 0.4, "rho_v": 0.6}], ids=str)
def test_omnizips_fixed_bounds(options):
    for shape in ("tail chunk", "two chunks", "audio ends early"):
        check_against_the_slow_reading("omnizip", clip(shape), lo=0.35, hi=0.75, **options)


@pytest.mark.parametrize("shape", CLIPS)
@pytest.mark.parametrize("name", ["omnizip", "dash"])
def test_tokens_that_are_all_alike(name, shape):
    tokens = clip(shape)
    for value in (tokens.video, tokens.audio, tokens.audio_attention):
        value.fill_(1.0)
    for options in ({"R": 0.3}, {"R": 0.3, "rho_v": 0.7}):
        check_against_the_slow_reading(name, tokens, **options)


@pytest.mark.parametrize("name", ["omnizip", "dash"])
def test_tokens_that_are_all_zero(name):
    tokens = clip("both")
    for value in (tokens.video, tokens.audio, tokens.audio_attention):
        value.zero_()
    kept, embeddings = enter(name, tokens, 0.5, rho_v=0.5)
    assert len(kept) > 0
    assert embeddings.eq(0).all()


@pytest.mark.parametrize("name", ["omnizip", "dash"])
def test_a_still_picture_of_wide_tokens_ties(name):
    tokens = media_tokens(ClipTokens(60, 6, 30), d=700)
    tokens = dataclasses.replace(tokens, video=tokens.video[:1].expand(180, -1), audio=tokens.audio[:1].expand(60, -1))
    kept = torch.zeros(240, dtype=torch.bool)
    kept[enter(name, tokens, 0.5, rho_v=0.6)[0]] = True
    video = kept[tokens.modality == VIDEO]
    for grid in video.split(30):
        assert 0 < grid.sum() < 30
        assert grid[: grid.sum()].all()


@pytest.mark.parametrize("name", ["omnizip", "dash"])
def test_bfloat16_is_compared_in_float32(name):
    tokens = clip("tail chunk")
    low = dataclasses.replace(tokens, video=tokens.video.bfloat16(), audio=tokens.audio.bfloat16())
    high = dataclasses.replace(tokens, video=low.video.float(), audio=low.audio.float())
    (kept, embeddings), (kept_high, embeddings_high) = enter(name, low, 0.4), enter(name, high, 0.4)
    assert kept == kept_high
    assert embeddings.equal(embeddings_high.bfloat16())


@pytest.mark.parametrize("name", ["omnizip", "dash"])
def test_blocks_leave_no_seam(name, monkeypatch):
    tokens = clip("tail chunk")
    kept, embeddings = enter(name, tokens, 0.4)
    monkeypatch.setattr(ops, "_BLOCK_ROWS", 7)
    monkeypatch.setattr("omniqa.pruning.methods.dash._BLOCK", 7)
    in_blocks = enter(name, tokens, 0.4)
    assert in_blocks[0] == kept
    torch.testing.assert_close(in_blocks[1], embeddings)


def test_the_best_match_is_the_first_of_equals():
    y = torch.eye(3).repeat(7, 1)
    values, indices = ops.most_similar(torch.eye(3), y)
    assert (values.tolist(), indices.tolist()) == ([1.0] * 3, [0, 1, 2])


@pytest.mark.parametrize("name", ["omnizip", "dash"])
def test_needed_importance_that_is_missing_is_said(name):
    tokens = dataclasses.replace(clip("both"), audio_attention=None)
    with pytest.raises(ValueError, match=r"needs MediaTokens\.audio_attention"):
        enter(name, tokens, 0.4)
    assert enter(name, tokens, 1.0) == (list(range(len(tokens.modality))), None)
    silent = dataclasses.replace(clip("no audio"), audio_attention=None)
    assert enter(name, silent, 0.5, rho_v=0.6) is not None
    assert registry.create(name, 0.3).needs == {AudioAttention("global")}
    assert registry.create(name, 0.3, audio_attention="window").needs == {AudioAttention("window")}
    assert registry.create(name, 1.0).needs == frozenset()


def test_chunk_rates_come_to_rho_v():
    audio, video = [50] * 6, [144] * 6
    rates = chunk_rates(0.7, 0.5, 0.9, [10, 50, 30, 25, 30, 20], audio, video)
    assert sum(rates) / 6 == pytest.approx(0.7)
    assert rates[0] == pytest.approx(0.9 - 0.4 * 0.2)  # least audio kept: the highest rate stays
    assert rates[1] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("omnizip", {"lo": 0.3}),
        ("omnizip", {"lo": 0.8, "hi": 0.7}),
        ("omnizip", {"g": -1}),
        ("dash", {"rho_v": 1.1}),
        ("dash", {"anchors": -0.1}),
        ("omnizip", {"rho_audio": 2.0}),
        ("dycoke", {"rho": -0.1}),
        ("random", {"seed": -1}),
    ],
)
def test_options_out_of_range_are_refused(name, options):
    with pytest.raises(UsageError, match=f"{name}.*is not allowed"):
        registry.create(name, 0.4, **options)


# --- random, fastv, dycoke ---


@pytest.mark.parametrize("R", [0.1, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("shape", CLIPS)
def test_random_is_one_draw_over_both_modalities(shape, R):
    tokens = clip(shape)
    n = len(tokens.modality)
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: round(R * n)]
    assert enter("random", tokens, R) == (sorted(drawn.tolist()), None)
    assert enter("random", tokens, R) == enter("random", tokens, R)


def test_another_seed_is_another_draw():
    assert enter("random", clip("both"), 0.5) != enter("random", clip("both"), 0.5, seed=1)


@pytest.mark.parametrize("R", [0.2, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("shape", CLIPS)
@pytest.mark.parametrize("tied", [False, True])
def test_fastv_cuts_once(shape, R, tied):
    tokens, method = clip(shape), registry.create("fastv", R)
    n = len(tokens.modality)
    plan = method.plan(tokens.counts, LAYERS)
    counts = reference.fastv(n, LAYERS, R)
    assert list(plan.kept) == counts
    scores = torch.rand(LAYERS - 1, n, generator=torch.Generator().manual_seed(3))
    if tied:
        scores = (scores * 4).floor() / 4
    alive = run_layers(method, plan, tokens, entered(method, tokens, plan), scores)
    kept = reference.top_audio(scores[1].tolist(), counts[2])
    assert [indices.tolist() for indices in alive] == [list(range(n))] * 2 + [kept] * (LAYERS - 2)
    assert method.needs == ({Scores("last")} if R < 1 else frozenset())


@pytest.mark.parametrize(("layers", "R"), [(10, 0.19), (28, 0.05), (2, 0.5)])
def test_fastv_can_not_go_below_two_layers(layers, R):
    method = registry.create("fastv", R)
    with pytest.raises(UsageError, match=rf"fastv can't .* floor here is {2 / layers:.4f}") as error:
        method.plan(ClipTokens(100, 4, 25), layers)
    assert error.value.floor == error.value.nearest == 2 / layers
    assert registry.create("fastv", 2 / layers).plan(ClipTokens(100, 4, 25), layers).kept[0] == 200


@pytest.mark.parametrize("R", [0.3, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("shape", CLIPS)
def test_dycoke_is_ttm_at_the_rate_that_meets_R(shape, R):
    tokens = clip(shape)
    counts, tokens_per_grid = tokens.counts, tokens.tokens_per_grid
    rho = reference.dycoke_rho(counts.n_audio, counts.grids, tokens_per_grid, R)
    if rho is None:
        with pytest.raises(Unreachable):
            registry.create("dycoke", R).plan(counts, LAYERS)
        return
    for options in ({}, {"rho": 0.4}):
        rate = options.get("rho", rho)
        video = tokens.video.tolist()
        stays = (
            reference.ttm([video[g : g + tokens_per_grid] for g in range(0, len(video), tokens_per_grid)], rate)
            if tokens_per_grid
            else []
        )
        video_kept = [i for i, flag in enumerate(flag for grid in stays for flag in grid) if flag]
        modality = [int(kind == AUDIO) for kind in tokens.modality]
        kept, _ = reference.in_sequence(modality, video_kept, range(counts.n_audio), {})
        assert enter("dycoke", tokens, R, **options) == (kept, None)
        assert len(kept) == registry.create("dycoke", R, **options).plan(counts, LAYERS).kept[0]


def test_dycokes_floor_is_the_one_of_methods_md():
    method = registry.create("dycoke", 0.2)
    with pytest.raises(UsageError, match=r"dycoke can't bring this clip to retention 0.2; its floor here is 0\.36"):
        method.plan(ClipTokens(32 * 50, 64, 144), 28)


# --- landing on R ---

SHAPES = {  # counts, and how media_tokens spreads them
    "as usual": (ClipTokens(400, 32, 72), {"chunks": 16}),
    "much audio": (ClipTokens(900, 7, 64), {"chunks": 7}),
    "large grids": (ClipTokens(150, 10, 220), {"chunks": 5}),
}


def landed(name, tokens, R):
    """The achieved retention, or the error."""
    method = registry.create(name, R)
    try:
        plan = method.plan(tokens.counts, 28)
        first = entered(method, tokens, plan)
    except Unreachable as error:
        return error
    return (sum(plan.kept) if method.exact_plan else 28 * len(first)) / (28 * len(tokens.modality))


@pytest.mark.parametrize("R", [0.1, 0.2, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["random", "fastv", "dycoke", "omnizip", "dash"])
def test_it_lands_on_R_or_names_its_floor(name, shape, R):
    counts, spread = SHAPES[shape]
    tokens = media_tokens(counts, d=16, **spread)
    outcome = landed(name, tokens, R)
    if not isinstance(outcome, Unreachable):
        tolerance = max(0.002, 1 / counts.n) if name in ("random", "fastv") else 0.01
        assert abs(outcome - R) <= tolerance + 1e-9
        return
    assert (name, shape) in {("dycoke", shape), ("dash", "much audio")}
    assert R < outcome.floor == outcome.nearest
    assert f"floor here is {outcome.floor:.4f}" in str(outcome)
    assert landed(name, tokens, outcome.nearest) == pytest.approx(outcome.nearest)  # a table's row at the floor
    assert landed(name, tokens, outcome.nearest - 0.009) == pytest.approx(outcome.nearest)


def test_the_floors_on_the_usual_clip():
    counts, spread = SHAPES["as usual"]
    tokens = media_tokens(counts, d=16, **spread)
    assert landed("dycoke", tokens, 0.1).floor == (400 + 8 * 72) / counts.n
    assert landed("omnizip", tokens, 0.1) == pytest.approx(0.1, abs=0.01)


def test_an_explicit_ratio_switches_the_solver_off():
    tokens = media_tokens(SHAPES["as usual"][0], chunks=16)
    for name, option in (("dycoke", "rho"), ("omnizip", "rho_v"), ("dash", "rho_v")):
        one, other = (enter(name, tokens, R, **{option: 0.6}) for R in (0.05, 0.9))
        assert one[0] == other[0]
        assert one[0] != enter(name, tokens, 0.9, **{option: 0.7})[0]


def test_the_error_survives_a_process_boundary():
    error = Unreachable("dash", 0.1, 0.25, 0.25)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.nearest, copy.exit_code) == (str(error), 0.25, 2)


def test_the_nearest_ratio_is_the_lower_one_on_a_tie_and_else_the_nearer_end():
    assert nearest(0.0, 1.0, lambda ratio: 2 if ratio < 0.5 else 0, goal=1) < 0.5
    assert nearest(0.0, 1.0, lambda ratio: 3 if ratio < 0.5 else 0, goal=1) >= 0.5
    assert nearest(0.0, 1.0, lambda ratio: 5, goal=1) == pytest.approx(1.0)
