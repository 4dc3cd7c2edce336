"""Evidence is held against the true span, and chance is that of chunks drawn at random."""

from itertools import combinations

import pytest

from omniqa.eval.evidence import compare, iou, means

CLIP = [(0, 2), (2, 4), (4, 6), (6, 7)]


def test_a_chunk_that_only_borders_on_the_span_does_not_touch_it():
    hit = compare([(0, 2), (2, 4)], (0, 2), (2.0, 3.0), CLIP)
    assert (hit.top, hit.top3, hit.first, hit.iou) == (False, True, True, 0)


@pytest.mark.parametrize("true", [(0.5, 1), (1, 3), (3, 6.5), (0, 7)])
def test_chance_is_the_share_of_random_chunks_that_touch_the_span(true):
    hit = compare(CLIP, (0, 2), true, CLIP)
    touching = [chunk for chunk in CLIP if chunk[0] < true[1] and true[0] < chunk[1]]
    triples = list(combinations(CLIP, 3))
    assert hit.chance == pytest.approx(len(touching) / 4)
    assert hit.chance3 == pytest.approx(sum(any(chunk in touching for chunk in three) for three in triples) / 4)


def test_a_clip_of_one_chunk_is_always_hit():
    hit = compare([(0, 2)], (0, 2), (0.5, 1), [(0, 2)])
    assert (hit.top, hit.top3, hit.chance, hit.chance3) == (True, True, 1, 1)


def test_intersection_over_union():
    assert iou((0, 4), (2, 6)) == pytest.approx(1 / 3)
    assert iou((0, 1), (1, 2)) == 0


def test_means_are_of_each_measure():
    hits = [compare([(0, 2)], (0, 2), (0, 2), CLIP), compare([(0, 2)], (0, 2), (4, 6), CLIP)]
    assert means(hits)["top"] == 0.5
    assert means(hits)["iou"] == 0.5
