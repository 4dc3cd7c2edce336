"""Evidence is what the question drew attention to; spans and regions follow from it."""

from fractions import Fraction
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from omniqa.media.clip import Clip
from omniqa.models.base import AUDIO, STANDARD, VIDEO, MediaShape
from omniqa.pipeline.answer import EVIDENCE_CHUNKS, Evidence, ModalityGain, find_evidence, join_evidence, measure_gain
from omniqa.pipeline.load import load
from tests.media.clips import CLOCKWISE, Video, grey, write_clip

ROWS, COLS = 3, 4
WIDTH, HEIGHT = 4 * 100, 3 * 50  # of the file's picture


def evidence_of(surplus, modality, chunk, start_s=10.0, duration_s=5.0):
    shape = MediaShape(tuple(Fraction(k) for k in range(3)), ROWS, COLS, 4)
    summary = SimpleNamespace(duration_s=duration_s, picture_width=WIDTH, picture_height=HEIGHT)
    media = SimpleNamespace(start_s=start_s, shape=shape, summary=summary)
    trace = SimpleNamespace(modality=np.array(modality, np.int8), chunk=np.array(chunk))
    return find_evidence(trace, np.array(surplus, np.float32), media, STANDARD)


def clip_of(video_by_grid, audio):
    """Three grids of 3 x 4 tokens in chunks 0, 0 and 1, and sound in chunk 2."""
    modality = [VIDEO] * 3 * ROWS * COLS + [AUDIO] * len(audio)
    chunk = np.repeat([0, 0, 1, 2], [ROWS * COLS] * 3 + [len(audio)])
    return evidence_of([*np.concatenate([grid.ravel() for grid in video_by_grid]), *audio], modality, chunk)


def grid(**cells):
    values = np.zeros((ROWS, COLS))
    for place, value in cells.items():
        values[int(place[1]), int(place[2])] = value
    return values


def test_tokens_that_lose_attention_count_nothing():
    first, *_ = clip_of([grid(c00=5), grid(c01=-90), grid(c00=4)], [1, -1, -1, -1])
    assert (first.start_s, first.score, first.video, first.audio) == (10, 5, 5, 0)


def test_chunks_come_strongest_first_and_end_with_the_clip():
    chunks = clip_of([grid(c00=1), grid(), grid(c00=2)], [3, 0, 0, 0])
    assert [chunk.start_s for chunk in chunks] == [14, 12, 10]
    assert chunks[0].end_s == pytest.approx(10 + 5)
    assert (chunks[0].audio, chunks[0].region) == (3, None)


def smallest(cells):
    """(area, most inside) of the smallest box with half of it, by trying all boxes."""
    boxes = []
    for top, left, bottom, right in product(range(ROWS), range(COLS), range(1, ROWS + 1), range(1, COLS + 1)):
        inside = cells[top:bottom, left:right].sum()
        if top < bottom and left < right and inside >= cells.sum() / 2:
            boxes.append(((bottom - top) * (right - left), -inside))
    return min(boxes)


@pytest.mark.parametrize("seed", range(12))
def test_the_region_is_the_smallest_box_with_half_of_a_chunks_picture(seed):
    rng = np.random.default_rng(seed)
    one, two = rng.integers(0, 5, (2, ROWS, COLS)).astype(float)
    first = clip_of([one, two, grid()], [0, 0, 0, 0])[0]
    left, right = (edge // 100 for edge in first.region[::2])
    top, bottom = (edge // 50 for edge in first.region[1::2])
    cells = one + two
    assert ((bottom - top) * (right - left), -cells[top:bottom, left:right].sum()) == smallest(cells)


def test_every_chunk_is_ranked_and_the_strongest_have_a_region():
    n, modality = 8, [VIDEO] * 8 * ROWS * COLS
    surplus, chunk_of = np.repeat(range(n), ROWS * COLS), np.repeat(range(n), ROWS * COLS)
    chunks = evidence_of(surplus, modality, chunk_of, duration_s=16.0)
    assert [chunk.start_s for chunk in chunks] == [10 + 2 * k for k in reversed(range(n))]
    assert [chunk.region is not None for chunk in chunks] == [True] * EVIDENCE_CHUNKS + [False] * (n - EVIDENCE_CHUNKS)


@pytest.mark.parametrize(
    ("made", "shown"),
    [({}, (64, 48)), ({"matrix": CLOCKWISE}, (48, 64)), ({"options": {"x264-params": "sar=2/1"}}, (128, 48))],
)
def test_regions_are_in_pixels_of_the_picture_as_it_is_shown(tmp_path, made, shown):
    path = write_clip(tmp_path / "clip.mp4", Video([grey(k) for k in range(25)], **made))
    qa = load("nano", "cpu")
    clip = qa.encode(path)
    trace, seen = qa.prefill(clip, "Which shape is red?", "none").trace, clip.summary
    assert (seen.picture_width, seen.picture_height) == shown
    assert (seen.width, seen.height) != shown  # the model sees it enlarged
    surplus = np.zeros(len(trace.modality), np.float32)
    surplus[np.flatnonzero(trace.modality == VIDEO)[-1]] = 1  # the lower right corner
    left, top, *corner = find_evidence(trace, surplus, clip, qa.model.geometry)[0].region
    assert corner == [*shown]
    assert (left, top) == (round(shown[0] * (1 - 1 / clip.shape.cols)), round(shown[1] * (1 - 1 / clip.shape.rows)))


def test_frames_at_hand_keep_their_own_pixels():
    clip = Clip.from_arrays(np.stack([grey(k) for k in range(4)]))
    assert clip.frames.shape[1:3] != (48, 64)
    assert (clip.info.video.height, clip.info.video.width) == (48, 64)


def chunk(start, score):
    return Evidence(start, start + 2.0, score, score / 4, 3 * score / 4)


def test_neighbours_are_joined_and_weak_chunks_left_out():
    spans = join_evidence([chunk(4.0, 8.0), chunk(8.0, 7.0), chunk(6.0, 5.0), chunk(0.0, 4.0), chunk(2.0, 3.9)])
    assert [(span.start_s, span.end_s, span.score) for span in spans] == [(4.0, 10.0, 20.0), (0.0, 2.0, 4.0)]
    assert (spans[0].audio, spans[0].video) == (5.0, 15.0)


def test_no_evidence_is_no_span():
    assert join_evidence([]) == ()
    assert join_evidence([chunk(0.0, 0.0)]) == ()


@pytest.mark.parametrize(
    ("asked", "unasked", "gain", "larger"),
    [
        ([[1, 1, 6], [1, 1, 0]], [[1, 1, 2], [0, 0, 0]], (1.2, 0.8), "audio"),  # shares 0.6 of 0.5, and 0.4 of 0.5
        ([[9, 0, 1]], [[1, 0, 1]], (0.2, 1.8), "video"),
        ([[1, 1, 1]], [[1, 1, 1]], (1, 1), None),
        ([[0, 0, 0]], [[1, 1, 1]], (None, None), None),
        ([[1, 1, 1]], [[1, 1, 0]], (None, 2 / 3), None),
    ],
)
def test_gain_is_a_modalitys_share_over_that_of_the_row_before_the_question(asked, unasked, gain, larger):
    trace = SimpleNamespace(modality=np.array([VIDEO, VIDEO, AUDIO], np.int8))
    found = measure_gain(trace, *(np.array(rows, np.float32) for rows in (asked, unasked)))
    assert (found.audio, found.video) == (gain[0] and pytest.approx(gain[0]), gain[1] and pytest.approx(gain[1]))
    assert found.larger == larger


def test_a_clip_of_one_modality_has_no_gain_in_the_other():
    trace = SimpleNamespace(modality=np.array([VIDEO, VIDEO], np.int8))
    rows = np.ones((1, 2), np.float32)
    assert measure_gain(trace, rows, 2 * rows) == ModalityGain(audio=None, video=1.0)
