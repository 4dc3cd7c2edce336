"""The benchmark of time to the first token: both sides get the same tokens, and its tables hold what was measured."""

import importlib.util
import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from benchmarks import encoders, prefill, rows
from benchmarks.theirs import READERS, Theirs, TheirsError
from omniqa.media.sampling import ClipOptions
from omniqa.models.qwen2_5_omni.flops import ModelShape

PATHS = [Path(sys.prefix) / "torchvision"]  # where `make test` puts what transformers' side needs


def there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None or any((path / module).is_dir() for path in PATHS)


def missing() -> str:
    """What transformers' side lacks here; empty where it can run."""
    lacks = [module for module in ("torchvision", "qwen_omni_utils") if not there(module)]
    lacks += [] if any(map(there, READERS)) else ["decord"]
    lacks += [] if shutil.which("ffmpeg") or there("imageio_ffmpeg") else ["ffmpeg"]
    lacks += [] if there("audioread") else ["audioread"]
    # qwen-omni-utils hands librosa a reader of audioread's, which librosa takes no longer.
    lacks += ["librosa below 1.0"] if int(version("librosa").split(".")[0]) else []
    return ", ".join(lacks)


needs_theirs = pytest.mark.skipif(bool(missing()), reason=f"transformers' side needs {missing()}; `make test` has it")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return prefill.make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=4, slides=False)


def run(seconds: float, tokens: tuple[int, int, int] = (10, 50, 100), **others) -> rows.Run:
    found = {"first_token": 7, "peak_rss_bytes": 10**9, "peak_device_bytes": None, "operations": {}} | others
    return rows.Run(
        seconds={"prefill": seconds, "time_to_first_token": seconds},
        tokens=dict(zip(rows.KINDS, tokens, strict=True)),
        **found,
    )


@needs_theirs
def test_one_command_runs_both_sides_on_the_same_tokens(checkpoint, clip, tmp_path, capsys):
    out = tmp_path / "out.json"
    command = [str(checkpoint), str(clip), "--retention", "1.0", "--retention", "0.3", "--runs", "1"]
    prefill.main([*command, "--json", str(out), *(part for path in PATHS for part in ("--path", str(path)))])
    record = json.loads(out.read_text())
    (found,) = record["clips"].values()
    theirs, *ours = found["rows"]
    assert [row["name"] for row in ours] == [
        "R = 1", "R = 1, second question", "R = 0.3", "R = 0.3, second question"
    ]  # fmt: skip
    for row in ours:
        assert row["tokens"]["audio"] == theirs["tokens"]["audio"]
        assert row["tokens"]["video"] == theirs["tokens"]["video"]
        assert row["times_faster"] == theirs["seconds"]["time_to_first_token"] / row["seconds"]["time_to_first_token"]
    assert theirs["tokens"] == ours[0]["tokens"]
    assert theirs["floor_s"] == pytest.approx(ours[0]["floor_s"])
    stages = dict(theirs["seconds"])
    assert stages.pop("time_to_first_token") == pytest.approx(sum(stages.values()))
    assert all(stages[stage] > 0 for stage in stages if stage != "input_pruning")
    assert {"torch", "transformers", "qwen-omni-utils"} <= set(record["transformers"]["versions"])
    assert record["threads"] == record["transformers"]["threads"]
    assert all(len(runs) == 1 for runs in found["runs"].values())
    printed = capsys.readouterr().out
    assert "| transformers |" in printed
    assert "to omniqa's" not in printed


@needs_theirs
def test_what_transformers_can_not_do_is_told_and_the_process_goes_on(checkpoint, clip):
    with Theirs(str(checkpoint), "auto", "cpu", 1, PATHS) as theirs:
        with pytest.raises(TheirsError):
            theirs.ask(clip, "What is seen?", frames=4000, size=(252, 448), sound=True)
        assert theirs.ask(clip, "What is seen?", frames=4, size=(252, 448), sound=True)["grids"] == 2


def test_without_its_packages_transformers_side_says_what_to_install(checkpoint):
    if there("qwen_omni_utils") and not any((path / "qwen_omni_utils").is_dir() for path in PATHS):
        pytest.skip("this environment has the packages")
    with pytest.raises(TheirsError, match="pip install"):
        Theirs(str(checkpoint), "auto", "cpu", 1)


def test_omniqa_alone_needs_no_other_package(checkpoint, clip, tmp_path, capsys):
    out = tmp_path / "out.json"
    command = [str(checkpoint), "--grow", "2", "--grow", "4", "--retention", "0.3", "--runs", "1"]
    prefill.main([*command, "--without-transformers", "--json", str(out), "--plot", str(tmp_path / "growth.png")])
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    assert "| R = 0.3 |" in capsys.readouterr().out
    found = json.loads(out.read_text())["clips"]
    assert list(found) == ["2 s", "4 s"]
    first, second = found["4 s"]["rows"]
    assert first["times_faster"] is None
    assert second["seconds"]["vision_encoder"] == 0
    assert "vision_encoder" not in second["floor_s"]
    assert second["seconds"]["time_to_first_token"] < first["seconds"]["time_to_first_token"]


def test_the_encoders_alone_agree_and_equal_grids_have_a_lower_floor(qa, tmp_path):
    slides = prefill.make_clip(tmp_path / "slides.mp4", seconds=8, slides=True)
    found = encoders.measure(qa, slides, ClipOptions(), runs=1)
    assert [(row["stage"], row["name"]) for row in found["rows"]] == [
        ("vision encoder", "transformers"), ("vision encoder", "omniqa"),
        ("audio encoder", "transformers"), ("audio encoder", "omniqa"),
    ]  # fmt: skip
    assert max(found["largest_difference"].values()) < 1e-3
    theirs, ours = found["rows"][:2]
    assert ours["floor_s"] < theirs["floor_s"] / 2
    assert ours["times_faster"] == theirs["median_s"] / ours["median_s"]
    assert "| vision encoder | omniqa |" in encoders.table(found)
    assert list(found["operators"]) == ["vision encoder", "audio encoder"]
    assert all(0.5 < sum(shares.values()) <= 1 for shares in found["operators"].values())


def test_a_difference_in_tokens_is_shown_with_both_counts():
    found = {"transformers": [run(4.0, (10, 47, 144))], "R = 0.3": [run(1.0)]}
    theirs, ours = made = rows.make_rows(found, rate=1e12)
    assert theirs["more_tokens"] == {"text": 0, "audio": -3, "video": 44}
    assert ours["times_faster"] == 4
    shown = rows.table({"rows": made})
    assert "10 + 47 + 144 (-3 audio, +44 video to omniqa's)" in shown
    assert "| 10 + 50 + 100 |" in shown


def test_rows_are_medians_and_the_largest_peak():
    runs = [run(seconds, peak_rss_bytes=peak) for seconds, peak in ((3.0, 1), (1.0, 9), (2.0, 5))]
    (row,) = rows.make_rows({"R = 1": runs}, rate=1e12)
    assert row["seconds"]["prefill"] == 2
    assert row["peak_rss_bytes"] == 9


def test_where_transformers_gives_up_the_table_says_why():
    made = rows.make_rows({"transformers": [], "R = 1": [run(1.0)]}, rate=1e12, note="its process ended")
    assert [row["name"] for row in made] == ["transformers", "R = 1"]
    assert "transformers: its process ended" in rows.table({"rows": made})


def test_floors_are_of_the_faster_of_both_rates(monkeypatch):
    monkeypatch.setattr(rows, "matmul_rate", lambda dtype, device: {torch.bfloat16: 1.0, torch.float32: 3.0}[dtype])
    rates = rows.Rates(torch.bfloat16, torch.device("cpu"))
    rates.measure()
    assert rates.best == {"bfloat16": 1.0, "float32": 3.0}
    assert rates.fastest == 3.0


def test_a_floor_counts_the_tokens_that_each_layer_computed(checkpoint):
    shape = ModelShape.of(str(checkpoint))
    tokens = {"text": 10, "audio": 50, "video": 144}
    whole = rows.operations(shape, tokens, grids=1, tokens_per_grid=144, lengths=[204.0] * 6)
    pruned = rows.operations(
        shape, tokens, grids=1, tokens_per_grid=144, lengths=[204.0, 104.0, 54.0, 54.0, 54.0, 54.0]
    )
    assert pruned["prefill"] < whole["prefill"] / 2
    assert pruned["vision_encoder"] == whole["vision_encoder"]
