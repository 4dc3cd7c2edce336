"""What a user sees of `omniqa bench`."""

import csv
import json
import subprocess
import sys

import pytest

ROW = {
    "method": None,
    "options": None,
    "retention": {"asked", "target", "achieved"},
    "note": None,
    "tokens": {"audio_kept", "video_kept"},
    "timing_s": {
        "encoding",
        "input_pruning",
        "prefill",
        "input_pruning_and_prefill",
        "per_token",
        "time_to_first_token",
    },
    "speedup": {"prefill", "time_to_first_token"},
    "memory": {"peak_rss_bytes", "peak_device_bytes"},
    "agreement": {"same_answer", "first_difference", "kl_nats"},
    "answer": None,
}
FIELDS = {
    "video", "question", "model", "device", "dtype", "attention", "threads", "repeats", "warmup", "new_tokens",
    "tokens", "media", "encoding_s", "rows", "left_out",
}  # fmt: skip


@pytest.fixture
def bench(omniqa, checkpoint):
    """`omniqa bench` with the small checkpoint, small frames, one round and short answers."""

    def call(*arguments):
        quick = ("--max-new-tokens", 2, "--min-pixels", 784, "--repeats", 1, "--warmup", 0)
        return omniqa("bench", "--model", checkpoint, *quick, *arguments)

    return call


def test_the_table_is_on_stdout_and_plain(bench, clip):
    code, out, err = bench(clip, "What is seen?", "--method", "random", "--method", "fastv", "--retention", 0.3)
    assert code == 0
    assert (err, "\x1b" in out) == ("", False)
    rows = {cells[0]: cells for line in out.splitlines() if len(cells := line.split()) > 10}
    assert {"method", "none", "random", "fastv"} <= set(rows)
    assert rows["none"][1:5] == ["1", "1.0000", "120", "125"]
    assert rows["none"][-2:] == ["same", "0"]
    assert "1.00x" in rows["none"]
    assert rows["fastv"][1] == "0.3*"
    assert "* fastv comes no nearer than 0.3333" in out
    assert "120 video, 125 audio and" in out
    assert "medians of 1 after 0 warm-ups" in out
    assert "vision encoder" in out


def test_by_default_all_methods_that_can_run_are_measured_and_the_others_named(bench, clip):
    code, out, err = bench(clip, "What?", "--json", "--retention", 0.4)
    assert code == 0, err
    report = json.loads(out)
    assert {"none", "omnidrop", "omnizip", "dash", "dycoke", "fastv", "random"} <= {r["method"] for r in report["rows"]}
    for method in report["left_out"]:
        assert f"{method['method']} is left out: " in err


def test_json_has_the_documented_fields(bench, clip):
    code, out, _ = bench(clip, "What is seen?", "--json", "--method", "omnidrop:tds=false", "--retention", 0.3)
    assert code == 0
    report = json.loads(out)
    assert set(report) == FIELDS
    assert set(report["encoding_s"]) == {"decode", "preprocess", "vision_encoder", "audio_encoder", "total"}
    assert (report["video"], report["question"]) == (str(clip), "What is seen?")
    for row in report["rows"]:
        assert set(row) == set(ROW)
        for name, fields in ROW.items():
            assert fields is None or set(row[name]) == fields
        assert all(set(spread) == {"median", "min", "max"} for spread in row["timing_s"].values())
    full, pruned = report["rows"]
    assert full["agreement"] == {"same_answer": True, "first_difference": None, "kl_nats": 0.0}
    assert (pruned["method"], pruned["options"]) == ("omnidrop", {"tds": False})
    assert pruned["retention"]["achieved"] == pytest.approx(0.3, abs=1 / 245)
    assert pruned["memory"]["peak_device_bytes"] is None


def test_csv_and_plot_are_written(bench, clip, tmp_path):
    pytest.importorskip("matplotlib")
    files = {"--csv": tmp_path / "rows.csv", "--plot": tmp_path / "plot.png"}
    code, _, err = bench(clip, "What?", "--method", "random", *(x for pair in files.items() for x in pair), "-q")
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(files["--csv"].open()))
    assert [(row["method"], row["retention.asked"]) for row in rows] == [
        ("none", "1.0"), ("random", "0.5"), ("random", "0.3"), ("random", "0.2"), ("random", "0.1"),
    ]  # fmt: skip
    assert files["--plot"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.mp4", "What?"], 3, "nowhere.mp4"),
        (["CLIP", " "], 2, "empty"),
        (["CLIP", "What?", "--method", "fastest"], 2, "fastest"),
        (["CLIP", "What?", "--retention", "2"], 2, "Retention 2"),
        (["CLIP", "What?", "--set", "random.speed=9"], 2, "speed"),
        (["CLIP", "What?", "--repeats", "0"], 2, "--repeats"),
        (["CLIP", "What?", "--max-new-tokens", "0"], 2, "--max-new-tokens"),
        (["CLIP", "What?", "--csv", "no/such/folder/rows.csv"], 2, "folder"),
        (["CLIP", "What?", "--plot", "plot.bmp"], 2, ".svg"),
        (["CLIP", "What?", "--method", "omnidrop:schedule=paper"], 2, "paper"),
        (["CLIP", "What?", "--audio-track", "9"], 3, "no audio track 9"),
        (["CLIP", "What?", "--model", "no/such/model/here"], 4, "no/such/model/here"),
    ],
)
def test_errors_are_one_line_with_the_documented_exit_code(bench, clip, arguments, code, message):
    got, out, err = bench(*(clip if argument == "CLIP" else argument for argument in arguments))
    assert (got, out, len(err.splitlines())) == (code, "", 1)
    assert message in err


def test_without_matplotlib_a_plot_is_refused_before_anything_is_measured(bench, clip, monkeypatch):
    monkeypatch.setattr("omniqa.bench.plot.importlib.util.find_spec", lambda name: None)
    code, out, err = bench(clip, "What?", "--plot", "plot.png")
    assert (code, out) == (2, "")
    assert "pip install 'omniqa[plot]'" in err


@pytest.mark.parametrize(
    "arguments",
    [["bench", "--help"], ["bench", "nowhere.mp4", "What?"], ["bench", "nowhere.mp4", "What?", "--method", "fastest"]],
)
def test_help_and_argument_errors_do_not_import_torch(arguments):
    code = f"import sys; from omniqa.cli.app import run; run({arguments}); print('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split("LOADED")[1].split()) & {"torch", "transformers", "numpy", "matplotlib"}


def test_a_report_shows_the_methods_side_by_side(bench, clip, tmp_path):
    file = tmp_path / "a.html"
    methods = ("--method", "random", "--method", "omnidrop", "--retention", 0.5, "--report", file, "--embed-media")
    code, out, err = bench(clip, "What is seen?", "--json", *methods)
    assert code == 0, err
    page, rows = file.read_text(encoding="utf-8"), json.loads(out)["rows"]
    assert page.count('class="run"') == len(rows) == 3
    for row in rows:
        assert f"{row['method']} at {row['retention']['asked']:g}" in page
    differing = [row["agreement"]["first_difference"] for row in rows if not row["agreement"]["same_answer"]]
    assert page.count('class="differs"') == len(differing)
    assert all(f"differs at token {place}" in page for place in differing)
    assert "data:video/mp4;base64," in page
