"""What leaving frames out saves, measured on clips of its own."""

import pytest

from benchmarks import seeking

CLIP = ["--seconds", "3", "--codec", "mpeg4", "--gop", "12"]


@pytest.mark.parametrize(("more", "rows"), [([], 2), (["--break-even"], 1)])
def test_every_way_has_a_figure(more, rows, capsys):
    seeking.main([*CLIP, *more])
    head, _, *found = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert len(found) == rows
    for cells in found:
        assert len(cells) == len(head)
        assert cells[0] == "mpeg4, 12"
        assert all(float(cell.strip("*")) > 0 for cell in cells[1:])
