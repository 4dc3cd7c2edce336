"""Evidence is held against the true spans, and chance is that of chunks in random order."""

from itertools import combinations, pairwise, permutations
from statistics import fmean

import pytest

from omniqa.eval.evidence import compare, iou, merge

CLIP = [(0, 2), (2, 4), (4, 6), (6, 7)]


def touches(chunk, spans):
    return any(chunk[0] < end and start < chunk[1] for start, end in spans)


def test_a_chunk_that_only_borders_on_the_span_does_not_touch_it():
    hit = compare([(0, 2), (4, 6), (2, 4), (6, 7)], (0, 2), [(2.0, 3.0)])
    assert (hit.top, hit.top3, hit.rank, hit.first, hit.iou) == (False, True, 3, True, 0)


@pytest.mark.parametrize("true", [[(0.5, 1)], [(1, 3)], [(3, 6.5)], [(0, 7)], [(0.5, 1), (6, 6.5)]])
def test_chance_is_what_chunks_in_random_order_come_to(true):
    hit = compare(CLIP, (0, 2), true)
    orders = list(permutations(CLIP))
    ranks = [1 + [touches(chunk, true) for chunk in order].index(True) for order in orders]
    assert hit.top_chance == pytest.approx(fmean(rank == 1 for rank in ranks))
    assert hit.top3_chance == pytest.approx(fmean(rank <= 3 for rank in ranks))
    assert hit.rank_chance == pytest.approx(fmean(ranks))
    assert hit.iou_chance == pytest.approx(fmean(iou(chunk, true) for chunk in CLIP))
    assert hit.first_chance == 0.25


def test_a_clip_of_one_chunk_is_always_hit():
    hit = compare([(0, 2)], (0, 2), [(0.5, 1)])
    assert (hit.top, hit.top3, hit.rank, hit.top_chance, hit.top3_chance, hit.rank_chance) == (True, True, 1, 1, 1, 1)


def test_a_span_outside_the_clip_can_be_hit_by_nothing_and_does_not_count():
    assert compare(CLIP, (0, 2), [(7, 9)]) is None
    assert compare(CLIP, (0, 2), []) is None


def test_intersection_over_union():
    assert iou((0, 4), [(2, 6)]) == pytest.approx(1 / 3)
    assert iou((0, 1), [(1, 2)]) == 0
    assert iou((0, 4), [(0, 1), (3, 5)]) == pytest.approx(2 / 5)
    assert iou((0, 4), [(0, 3), (2, 4), (1, 2)]) == 1


@pytest.mark.parametrize("spans", list(combinations([(0, 1), (0.5, 2), (2, 3), (4, 5), (4, 4.5)], 3)))
def test_merged_spans_are_the_same_time_without_overlaps(spans):
    merged = merge(spans)
    assert all(before[1] < after[0] for before, after in pairwise(merged))
    for tenth in range(52):
        time = tenth / 10 + 0.05
        assert any(start < time < end for start, end in merged) == any(start < time < end for start, end in spans)
