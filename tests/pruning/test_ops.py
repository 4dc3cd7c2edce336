"""The tensor operations select what the slow reading of methods.md selects, ties included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from omniqa.pruning.ops import cosine, drop_by_tds, drop_lowest, subsample_evenly, topk_indices
from omniqa.pruning.ttm import TemporalMerge
from tests.pruning import reference

# Scores in 64ths and λ = 1/4 over power-of-two clips: exact in float32, so that ties are ties for both readings.
TIED_SCORES = st.lists(st.integers(0, 8).map(lambda i: i / 64), min_size=1, max_size=30)
# Signed unit vectors and (±1, ±1, ±1, ±1): their pairwise_cosine are 0, ±1/2, ±1, exactly.
EXACT_VECTORS = st.sampled_from([
    *((sign * (i == 0), sign * (i == 1), sign * (i == 2), sign * (i == 3)) for i in range(4) for sign in (1, -1)),
    *((1, a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)),
    (0, 0, 0, 0),
])  # fmt: skip


def merge(video, rho):
    return TemporalMerge.at(rho, video.shape[1]).keep(video)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# --- thinning, top k ---


@given(st.integers(0, 300), st.integers(0, 300))
def test_thinning_is_the_formula(m, more):
    positions = subsample_evenly(m, m + more).tolist()
    assert positions == reference.thin(m, m + more)
    assert len(set(positions)) == m


def test_thinning_can_not_add():
    with pytest.raises(ValueError, match="thinned"):
        subsample_evenly(5, 4)


@given(TIED_SCORES, st.data())
def test_top_k_with_ties(values, data):
    k = data.draw(st.integers(0, len(values)))
    assert topk_indices(torch.tensor(values), k).tolist() == reference.top_audio(values, k)


def test_of_equal_values_the_first_are_chosen():
    assert topk_indices(torch.zeros(1000), 3).tolist() == [0, 1, 2]
    assert drop_lowest(torch.zeros(1000), 997).tolist() == [997, 998, 999]


# --- TTM ---


@pytest.mark.parametrize("grids", [0, 1, 2, 3, 4, 5, 6, 7, 8, 11])
@pytest.mark.parametrize("rho", [0.0, 0.33, 0.8, 1.0])
def test_merging_random_grids(grids, rho):
    video = torch.randn(grids, 12, 16, generator=seeded(grids))
    assert merge(video, rho).tolist() == reference.ttm(video.tolist(), rho)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.floats(0, 1), st.data())
def test_merging_grids_full_of_ties(grids, tokens_per_grid, rho, data):
    tokens = data.draw(st.lists(EXACT_VECTORS, min_size=grids * tokens_per_grid, max_size=grids * tokens_per_grid))
    video = torch.tensor(tokens, dtype=torch.float32).reshape(grids, tokens_per_grid, 4)
    assert merge(video, rho).tolist() == reference.ttm(video.tolist(), rho)


def test_a_long_video_is_merged_in_blocks_without_a_seam():
    video = torch.randn(131, 4, 6, generator=seeded(0))
    assert merge(video, 0.5).tolist() == reference.ttm(video.tolist(), 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_a_still_picture_all_tokens_tie(dtype):
    frame = torch.randn(1, 20, 3584, generator=seeded(1)).to(dtype)
    keep = merge(frame.expand(8, -1, -1), 0.8)
    assert keep[1::4].tolist() == [[i < 4 for i in range(20)]] * 2
    assert tuple(keep.sum(1).tolist()) == TemporalMerge.at(0.8, 20).counts(8, 20)


def test_similarity_is_taken_in_float32():
    video = torch.randn(8, 50, 64, generator=seeded(2)).bfloat16()
    assert merge(video, 0.8).equal(merge(video.float(), 0.8))


def test_similarity_is_to_the_whole_earlier_grid_and_to_the_right_one():
    a, b, c = torch.eye(3)
    g0, g1, g2, g3 = [a, b], [a, c], [c, b], [c, c]
    keep = merge(torch.stack([torch.stack(g) for g in (g0, g1, g2, g3)]), 0.5)
    # g1 differs from g0 at place 1; g2 from g0 at place 0; g3 from g2 at place 1, a place that g2 itself has dropped.
    assert keep.tolist() == [[True, True], [False, True], [True, False], [False, True]]


def test_nothing_resembles_a_token_of_zeros():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert cosine(x, torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])).tolist() == [0.0, 1.0, 0.0]
    assert merge(torch.zeros(4, 5, 3), 0.8).tolist() == reference.ttm(torch.zeros(4, 5, 3).tolist(), 0.8)


# --- the layer level ---


@st.composite
def layers(draw):
    """scores, chunk, k, max_chunk, droppable, with k as large as may be."""
    scores = draw(TIED_SCORES)
    n = len(scores)
    max_chunk = draw(st.sampled_from([0, 1, 2, 4, 8]))
    chunk = draw(st.lists(st.integers(0, max_chunk), min_size=n, max_size=n))
    droppable = draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n))
    k = draw(st.integers(0, n if droppable is None else sum(droppable)))
    return scores, chunk, k, max_chunk, droppable


def as_mask(droppable):
    return None if droppable is None else torch.tensor(droppable)


@settings(max_examples=300)
@given(layers())
def test_tds_with_ties(layer):
    scores, chunk, k, max_chunk, droppable = layer
    kept = drop_by_tds(torch.tensor(scores), torch.tensor(chunk), k, max_chunk, 0.25, as_mask(droppable))
    assert kept.tolist() == reference.drop_by_tds(scores, chunk, k, max_chunk, 0.25, droppable)


@settings(max_examples=200)
@given(layers())
def test_lowest_scores_with_ties(layer):
    scores, _, k, _, droppable = layer
    kept = drop_lowest(torch.tensor(scores), k, as_mask(droppable))
    assert kept.tolist() == reference.drop_lowest(scores, k, droppable)


@pytest.mark.parametrize("k", [0, 1, 17, 60, 119, 120])
@pytest.mark.parametrize("lam", [0.0, 1e-3, 0.2])
def test_tds_on_random_scores(k, lam):
    scores = torch.rand(120, generator=seeded(k))
    chunk = torch.randint(0, 10, (120,), generator=seeded(k + 1)).sort().values
    kept = drop_by_tds(scores, chunk, k, 9, lam)
    assert kept.tolist() == reference.drop_by_tds(scores.tolist(), chunk.tolist(), k, 9, lam)
    assert len(kept) == 120 - k


def test_tds_spares_the_candidates_far_from_the_chunk_that_matters():
    scores = torch.tensor([0.01, 0.02, 0.9, 0.03, 0.04])
    chunk = torch.tensor([2, 0, 2, 2, 0])
    assert drop_by_tds(scores, chunk, 2, 2, 0.2).tolist() == [1, 2, 4]
    assert drop_lowest(scores, 2).tolist() == [2, 3, 4]


@pytest.mark.parametrize("droppable", [None, [True, True, False, True, True]])
def test_tds_keeps_the_token_with_the_highest_score_unless_all_are_pruned(droppable):
    scores, chunk = torch.tensor([0.01, 0.9, 0.95, 0.03, 0.04]), torch.tensor([0, 4, 2, 0, 2])
    mask = as_mask(droppable)
    most = 5 if droppable is None else sum(droppable)
    best = 2 if droppable is None else 1
    for k in range(most):  # above half of the tokens λ·D outweighs every score here
        assert best in drop_by_tds(scores, chunk, k, 4, 5.0, mask).tolist()
    assert drop_by_tds(scores, chunk, most, 4, 5.0, mask).tolist() == ([] if droppable is None else [2])


def test_without_a_distance_tds_is_the_lowest_scores():
    scores = torch.rand(40, generator=seeded(3))
    one_chunk = torch.zeros(40, dtype=torch.long)
    assert drop_by_tds(scores, one_chunk, 15, 0, 0.2).equal(drop_lowest(scores, 15))
    assert drop_by_tds(scores, torch.arange(40), 15, 39, 0.0).equal(drop_lowest(scores, 15))


def test_protected_tokens_neither_leave_nor_set_the_chunk():
    scores = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.0])
    chunk = torch.tensor([0, 0, 2, 2, 0])
    droppable = torch.tensor([False, True, True, True, False])
    # Among the droppable, chunk 2 holds the highest score, so the token of chunk 2 leaves and that of chunk 0 stays.
    assert drop_by_tds(scores, chunk, 1, 2, 0.2, droppable).tolist() == [0, 1, 3, 4]
    assert drop_lowest(scores, 3, droppable).tolist() == [0, 4]


def test_the_layer_level_never_reads_a_value_back():
    with FakeTensorMode():  # has shapes but no values: reading one, as `.item()` and `nonzero()` do, is an error
        scores, chunk = torch.rand(50), torch.zeros(50, dtype=torch.long)
        droppable = torch.ones(50, dtype=torch.bool)
        assert drop_by_tds(scores, chunk, 20, 7, 0.2, droppable).shape == (30,)
        assert drop_lowest(scores, 20, droppable).shape == (30,)
