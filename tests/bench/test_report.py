"""What a report looks like in JSON, in CSV and as a drawing."""

import csv
import json

import pytest

from omniqa.bench.plot import check_plot, save_plot
from omniqa.bench.report import LeftOut, Measured, Report, Row, Spread
from omniqa.errors import UsageError
from omniqa.media.summary import MediaSummary


def measured(achieved, seconds, kl=0.5, same=True):
    prefill, pruning = Spread(seconds, seconds / 2, seconds * 2), Spread(0.25, 0.25, 0.25)
    whole = Spread(seconds + 0.25, seconds / 2 + 0.25, seconds * 2 + 0.25)
    step = Spread(0.01, 0.01, 0.02)
    encoding, differs = Spread(2.0, 2.0, 2.0), None if same else 2
    return Measured(
        achieved, 10, 20, encoding, pruning, prefill, whole, step, whole, 10**9, None, "a dog", same, differs, kl
    )


def make_report(*rows):
    full = Row("none", {}, 1.0, 1.0, "", measured(1.0, 7.75, 0.0))
    media = MediaSummary(8.0, 16, 2.0, 448, 252, 8.0, ())
    encoding = dict.fromkeys(("decode", "preprocess", "vision_encoder", "audio_encoder"), Spread(0.5, 0.5, 0.5))
    encoding["total"] = Spread(2.0, 2.0, 2.0)
    where = ("clip.mp4", "What?", "model", "cpu", "float32", "sdpa", 2)
    left_out = (LeftOut("omnisift", "no selector"),)
    return Report(*where, 5, 1, 32, 40, 50, 100, media, encoding, (full, *rows), left_out)


REPORT = make_report(
    Row("random", {}, 0.5, 0.5, "", measured(0.5, 3.75)),
    Row("omnidrop", {"tds": False}, 0.3, 0.3, "", measured(0.3, 1.75, same=False)),
    Row("fastv", {}, 0.1, 0.1, "out of memory", None),
)


def test_json_is_one_object_with_nulls_where_nothing_was_measured():
    report = json.loads(json.dumps(REPORT.to_dict()))
    full, random, omnidrop, fastv = report["rows"]
    assert random["speedup"] == {"prefill": 8 / 4, "time_to_first_token": 10 / 6}
    assert omnidrop["speedup"] == {"prefill": 8 / 2, "time_to_first_token": 10 / 4}
    assert full["speedup"] == {"prefill": 1, "time_to_first_token": 1}
    assert omnidrop["timing_s"]["prefill"] == {"median": 1.75, "min": 0.875, "max": 3.5}
    assert omnidrop["timing_s"]["time_to_first_token"] == {"median": 4.0, "min": 3.125, "max": 5.75}
    assert omnidrop["options"] == {"tds": False}
    assert omnidrop["agreement"] == {"same_answer": False, "first_difference": 2, "kl_nats": 0.5}
    assert set(fastv) == set(random)
    assert fastv["retention"] == {"asked": 0.1, "target": 0.1, "achieved": None}
    assert fastv["timing_s"] is fastv["agreement"] is fastv["answer"] is None
    assert report["tokens"] == {"text": 40, "audio": 50, "video": 100}
    assert report["left_out"] == [{"method": "omnisift", "reason": "no selector"}]


def test_csv_has_a_line_for_every_row_and_the_json_fields_by_their_full_names(tmp_path):
    REPORT.save_csv(tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [row["method"] for row in rows] == ["none", "random", "omnidrop", "fastv"]
    assert rows[2]["options"] == "tds=false"
    assert float(rows[2]["timing_s.prefill.median"]) == 1.75
    assert rows[2]["agreement.same_answer"] == "False"
    assert (rows[3]["retention.asked"], rows[3]["timing_s.prefill.median"]) == ("0.1", "")
    assert {row["video"] for row in rows} == {"clip.mp4"}


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_drawing_is_a_file_of_its_format(tmp_path, suffix, start):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot.{suffix}"
    check_plot(path)
    save_plot(REPORT, path)
    assert path.read_bytes().startswith(start)


def test_the_drawing_has_a_line_for_every_method_and_full_tokens(tmp_path):
    pytest.importorskip("matplotlib")
    save_plot(REPORT, tmp_path / "plot.svg")
    drawing = (tmp_path / "plot.svg").read_text()
    for label in ("full tokens", "random", "omnidrop:tds=false", "retention achieved", "hollow"):
        assert f"<!-- {label}" in drawing
    assert "<!-- fastv" not in drawing


def test_full_tokens_alone_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    save_plot(make_report(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_a_drawing_that_can_not_be_made_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        check_plot(tmp_path / "plot.bmp")
    with pytest.raises(UsageError, match="no folder"):
        check_plot(tmp_path / "no" / "plot.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'omniqa\[plot\]'"):
        check_plot(tmp_path / "plot.png")
