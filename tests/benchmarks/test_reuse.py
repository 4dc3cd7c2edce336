"""What --reuse-static saves is what was not computed, and its error is against exact embeddings."""

import torch

import omniqa
from benchmarks.reuse import measure, relative_error
from omniqa.media.sampling import ClipOptions
from tests.conftest import ROOT


def test_exact_embeddings_have_no_error_and_their_mean_has_that_of_knowing_nothing():
    exact = torch.randn(50, 8)
    assert relative_error(exact, exact) == 0
    assert abs(relative_error(exact.mean(0).expand_as(exact), exact) - 1) < 1e-6


def test_with_the_threshold_more_tokens_are_taken_and_what_is_exact_has_no_error():
    qa = omniqa.load("nano", device="cpu")
    rows = measure(qa, ROOT / "sample_media" / "tiger.mp4", ClipOptions(audio=False), [0.0, 255.0], runs=1)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [cell[1] for cell in cells] == ["off", "0", "255"]
    taken = [float(cell[2].rstrip("%")) for cell in cells]
    assert taken[0] == 0 <= taken[1] < taken[2]
    assert float(cells[0][5]) == 0 < float(cells[2][5])
