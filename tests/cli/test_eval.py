"""What a user sees of `omniqa eval`."""

import csv
import json
import subprocess
import sys

import pytest

from omniqa.cli.console import console
from omniqa.models.base import PromptText
from omniqa.pipeline.engine import OmniQA
from tests.eval.conftest import nano  # noqa: F401 (a fixture)
from tests.media.clips import Audio, Video, grey, tone, write_clip

COLUMN = {"by", "group", "column", "method", "retention", "n", "correct", "accuracy", "low", "high", "chance",
          "clustered_low", "clustered_high", "unparsed", "failed", "at_floor", "achieved", "encoders_s",
          "input_pruning_s", "prefill_s", "peak_device_bytes"}  # fmt: skip
OPTIONS = ["grey", "red", "blue", "green"]


@pytest.fixture
def evaluate(omniqa, nano):  # noqa: F811
    """`omniqa eval` with a small random model and short answers."""

    def call(*arguments):
        return omniqa("eval", "--model", nano, "--max-new-tokens", 4, *arguments)

    return call


@pytest.fixture
def evaluate_nano(evaluate):
    """`omniqa eval nano` on two short clips."""

    def call(*arguments):
        return evaluate("nano", "--clips", 2, "--seconds", 3, "--scenes", 1, "--size", 112, *arguments)

    return call


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """A file of four questions about two clips, of which one is there."""
    folder = tmp_path_factory.mktemp("set")
    write_clip(folder / "a.mp4", Video([grey(i, 112, 112) for i in range(30)], 10), Audio(tone(3.0)))
    lines = [
        {"video": "a.mp4", "question": "Which colour?", "options": OPTIONS, "answer": "A", "task": "colour"},
        {"video": "a.mp4", "question": "What is heard?", "answer": "a tone", "task": "sound"},
        {"video": "b.mp4", "question": "Which colour?", "options": OPTIONS, "answer": "B", "task": "colour"},
        {"video": "b.mp4", "question": "What is heard?", "answer": "nothing", "task": "sound"},
    ]
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_nano_is_counted_by_kind_and_modality_beside_chance(evaluate_nano):
    code, out, err = evaluate_nano("--method", "none", "--method", "omnidrop", "--retention", 0.5, "--limit", 9)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("nano: ")
    assert "9 questions about 1 clip, " in lines[0]
    headers = [line.split()[0] for line in lines if "chance %" in line]
    assert headers == ["method", "task", "kind", "modality", "moments"]
    assert next(line for line in lines if line.split()[:1] == ["shape"]).split()[2] in ("12.5", "25.0", "18.8")
    assert any(line.split()[:2] == ["none", "omnidrop"] for line in lines)
    assert "omnidrop 0.5" in out
    assert "mid-p" in out
    assert "\x1b" not in out


def test_right_answers_of_nano_show_how_often_their_evidence_is_right(evaluate_nano, tmp_path):
    code, out, err = evaluate_nano("--limit", 9, "--model", "nano", "-o", tmp_path)
    assert code == 0, err
    assert "top chunk % (chance)" in out
    made = json.loads((tmp_path / "report.json").read_text())["evidence"]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert made[0]["group"] == "one span"
    assert 0 < made[0]["n"] <= sum(row["correct"] for row in rows)
    assert made[0]["top"] >= made[0]["top_chance"]
    assert {row["points_to"] for row in rows} <= {"video", "audio"}
    assert 0 <= made[0]["to_video"] <= 1
    assert next(line for line in out.splitlines() if line.startswith("one span,")).split()[2] in ("video", "audio")


def test_ray_actors_give_the_answers_that_this_process_gives(evaluate_nano, tmp_path):
    asked = ("--method", "none", "--method", "random", "--retention", 0.5, "--limit", 6, "--json", "-q")
    folders = [tmp_path / "plain", tmp_path / "ray"]
    for folder, engine in zip(
        folders, ((), ("--engine", "ray", "--ray-address", "local", "--device", "cpu")), strict=True
    ):
        code, _, err = evaluate_nano(*asked, *(engine or ("--device", "cpu")), "-o", folder)
        assert (code, err) == (0, "")
    plain, ray = (
        {
            (row["id"], row["column"]): (row["status"], row["answer"], row["correct"])
            for row in map(json.loads, (folder / "results.jsonl").read_text().splitlines())
        }
        for folder in folders
    )
    assert len(plain) == 12
    assert ray == plain


def test_json_is_one_object_and_files_hold_the_same(evaluate_nano, tmp_path):
    asked = ("--method", "random", "--retention", 0.5, "--retention", 0.3, "--limit", 5)
    code, out, err = evaluate_nano(*asked, "--json", "-q", "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert set(made) == {"dataset", "model", "questions", "clips", "columns", "cells", "evidence", "pairs",
                         "peak_rss_bytes", "failures", "warnings", "prompt", "prompt_task", "scoring",
                         "scoring_task"}  # fmt: skip
    assert made["columns"] == ["random 0.5", "random 0.3"]
    assert {frozenset(cell) for cell in made["cells"]} == {frozenset(COLUMN)}
    overall = made["cells"][:2]
    assert [cell["achieved"] for cell in overall] == pytest.approx([0.5, 0.3], abs=0.01)
    assert all(cell["n"] == made["questions"] and cell["chance"] > 0 for cell in overall)
    folder = tmp_path / "out"
    assert {path.name for path in folder.glob("[!.]*")} == {"results.jsonl", "results.jsonl.run.json", "report.json",
                                                            "report.csv"}  # fmt: skip
    assert json.loads((folder / "report.json").read_text()) == made
    with (folder / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["by"], row["group"], row["column"]) for row in rows] == [
        (cell["by"], cell["group"], cell["column"]) for cell in made["cells"]
    ]
    assert {(row["prompt"], row["scoring"]) for row in rows} == {("omniqa", "strict")}
    settings = json.loads((folder / "results.jsonl.run.json").read_text())["settings"]
    assert {(one["prompt"], one["scoring"]) for one in settings.values()} == {("omniqa", "strict")}
    assert len((folder / "results.jsonl").read_text().splitlines()) == 2 * made["questions"]


def test_a_finished_run_shows_its_table_without_loading_the_model(evaluate_nano, tmp_path, monkeypatch):
    arguments = ("--limit", 3, "-o", tmp_path / "out", "-q")
    first = evaluate_nano(*arguments)
    monkeypatch.setattr("omniqa.cli.jobs.load_model", None)
    assert evaluate_nano(*arguments) == first


def test_more_methods_and_more_clips_only_add(evaluate_nano, tmp_path, monkeypatch):
    asked = []
    ask_all = OmniQA.ask_all
    monkeypatch.setattr(
        OmniQA, "ask_all", lambda self, *given, **rest: asked.append(given[2].name) or ask_all(self, *given, **rest)
    )
    out = ("-o", tmp_path / "out", "-q")
    assert evaluate_nano("--limit", 2, "--method", "none", *out)[0] == 0
    assert evaluate_nano("--limit", 4, "--method", "none", "--method", "random", *out)[0] == 0
    assert asked.count("none") == 4
    assert asked.count("random") == 4


@pytest.mark.parametrize(
    "changed",
    [
        ["--seed", 1],
        ["--fps", 1],
        ["--blind", "audio"],
        ["--hint", "Briefly."],
        ["--size", 140],
        ["--prompt", "lmms-eval"],
        ["--scoring", "omnizip"],
    ],
)
def test_other_settings_in_the_same_folder_are_refused(evaluate_nano, tmp_path, changed):
    out = ("-o", tmp_path / "out", "-q", "--limit", 1)
    assert evaluate_nano(*out)[0] == 0
    code, stdout, err = evaluate_nano(*out, *changed)
    assert (code, stdout, len(err.splitlines())) == (2, "", 1)
    assert "other settings" in err


def test_a_file_of_questions_with_a_missing_clip_ends_with_6(evaluate, questions, tmp_path):
    code, out, err = evaluate(questions, "-o", tmp_path / "out")
    assert code == 6
    assert "questions.jsonl: 4 questions about 2 clips" in out
    assert "b.mp4 is not in" in err
    assert "(2 answers)" in err
    assert err.splitlines()[-1] == "omniqa: 2 of 4 answers failed; the same command tries them again"
    made = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [failure["question"] for failure in made["failures"]] == [2, 3]
    assert (made["cells"][0]["n"], made["cells"][0]["failed"]) == (2, 2)
    write_clip(questions.parent / "b.mp4", Video([grey(i, 112, 112) for i in range(30)], 10))
    code, out, err = evaluate(questions, "-o", tmp_path / "out")
    (questions.parent / "b.mp4").unlink()
    assert code == 0
    assert "2 of 4 answers are there already" in err
    assert "1 clip with warnings" in err, "b.mp4 has no sound"


def test_a_harnesss_words_and_rule_are_named_above_the_tables(evaluate, questions, monkeypatch):
    asked = []
    ask_all = OmniQA.ask_all
    monkeypatch.setattr(
        OmniQA, "ask_all", lambda self, video, prompts, *rest, **named: asked.extend(prompts)
        or ask_all(self, video, prompts, *rest, **named)
    )  # fmt: skip
    code, out, _ = evaluate(questions, "--prompt", "seats", "--scoring", "vlmevalkit", "--method", "none", "-q")
    assert code == 6, "b.mp4 is missing"
    assert out.splitlines()[1] == "prompt seats (videomme), scoring vlmevalkit (videomme)"
    (choice,) = [prompt for prompt in asked if isinstance(prompt, PromptText)]
    assert choice.system == ""
    assert choice.question.startswith("Select the best answer to the following multiple-choice question")
    assert "What is heard?" in asked


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_a_table_has_a_row_for_each_method_and_names_prompt_and_scoring(evaluate_nano, form):
    asked = ("--method", "none", "--method", "random", "--limit", 3, "--table", form, "--by", "kind", "-q")
    code, out, err = evaluate_nano(*asked, "--prompt", "seats")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert sum(line.lstrip("| ").startswith(("none", "random 0.3")) for line in lines) == 2
    assert "prompt seats (videomme), scoring strict" in out
    assert (
        len({line.count({"markdown": "|", "latex": "&", "csv": ","}[form]) for line in lines if "random" in line}) == 1
    )


def test_a_preset_holds_where_no_option_says_otherwise(evaluate_nano, tmp_path):
    out = tmp_path / "out"
    code, _, err = evaluate_nano("--preset", "seats", "--max-frames", 4, "--limit", 1, "-o", out, "-q")
    assert code == 0, err
    (settings,) = json.loads((out / "results.jsonl.run.json").read_text())["settings"].values()
    token = 28 * 28
    assert (settings["max_frames"], settings["fps"], settings["max_pixels"]) == (4, 2.0, 144 * token)
    assert (settings["total_pixels"], settings["max_new_tokens"]) == (24_576 * token, 4), "4 is given"


def test_a_record_whose_right_option_is_empty_fails_alone(evaluate, questions, tmp_path):
    record = {"question": "Which?", "option_A": "dog", "option_B": "", "option_C": "cat", "video_path": "a.mp4"}
    path = questions.parent / "avut.json"
    path.write_text(json.dumps([record | {"answer": "B"}, record | {"answer": "C"}]))
    code, out, err = evaluate(path, "--method", "none", "--json")
    path.unlink()
    assert code == 6
    assert "the right option, B, is empty" in err
    made = json.loads(out)
    assert (made["cells"][0]["n"], made["cells"][0]["failed"], made["questions"]) == (1, 1, 2)


def test_clips_are_looked_for_in_media(evaluate, questions, tmp_path):
    assert evaluate(questions, "--media", questions.parent, "--limit", 1)[0] in (0, 6)
    code, out, err = evaluate(questions, "--media", tmp_path)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "--media" in err


def test_a_clip_that_has_changed_is_asked_about_again_with_a_note(evaluate, tmp_path):
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", Video([grey(i, 112, 112) for i in range(20)], 10), Audio(tone(2.0)))
    asked = [{"video": f"{name}.mp4", "question": "What is heard?", "answer": "a tone"} for name in ("a", "b")]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, asked)))
    arguments = (tmp_path / "set.jsonl", "-o", tmp_path / "out", "--fps", 1)
    assert evaluate(*arguments)[0] == 0
    first = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    (tmp_path / "a.mp4").write_bytes((tmp_path / "b.mp4").read_bytes())
    code, _, err = evaluate(*arguments)
    assert (code, "1 file has changed since it was asked about" in err) == (0, True)
    kept, again = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert kept == first[1]
    assert json.loads(again)["file"] != json.loads(first[0])["file"]


def test_a_track_that_a_clip_lacks_is_its_failure(evaluate, questions):
    code, out, _ = evaluate(questions, "--audio-track", 2, "--json")
    assert code == 6
    assert "no audio track 2" in str(json.loads(out)["failures"])


def test_an_interrupt_is_130_and_what_was_answered_is_kept(evaluate_nano, tmp_path, monkeypatch):
    ask_all = OmniQA.ask_all
    left = [3]

    def interrupted(self, *given, **rest):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return ask_all(self, *given, **rest)

    monkeypatch.setattr(OmniQA, "ask_all", interrupted)
    out = tmp_path / "out"
    code, stdout, err = evaluate_nano("-o", out)
    assert (code, stdout) == (130, "")
    assert "3 of" in err
    assert err.endswith("omniqa: interrupted\n")
    text = (out / "results.jsonl").read_text()
    assert text.endswith("\n")
    assert len([json.loads(line) for line in text.splitlines()]) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.jsonl"], 2, "nowhere.jsonl"),
        (["nowhere"], 2, "or the word nano"),
        (["nano", "--method", "fastest"], 2, "none, omnidrop"),
        (["nano", "--set", "speed=9"], 2, "schedule"),
        (["nano", "--retention", "2"], 2, "Retention 2"),
        (["nano", "--baseline", "fastv"], 2, "omnidrop 0.3"),
        (["nano", "--media", "."], 2, "--media is for a file"),
        (["nano", "--format", "avut"], 2, "--format is for a file"),
        (["nano", "--blind", "both"], 2, "video, audio"),
        (["nano", "--scenes", "9"], 2, "not 9"),
        (["nano", "--fps", "0"], 2, "frame rate"),
        (["nano", "--limit", "0"], 2, "limit"),
        (["nano", "--prompt", "lmms"], 2, "use omniqa, lmms-eval, vlmevalkit, omnizip, seats"),
        (["nano", "--table", "html"], 2, "use markdown, latex, csv"),
        (["nano", "--by", "task"], 2, "--by is for a table"),
        (["nano", "--by", "tasks", "--table", "csv"], 2, "task, kind, modality"),
        (["nano", "--preset", "vlmevalkit"], 2, "vlmevalkit-8frame"),
        (["nano", "--scoring", "seats"], 2, "use strict, lmms-eval, vlmevalkit, omnizip"),
        (["SET", "--clips", "3"], 2, "--clips is for the set nano"),
        (["SET", "--blind", "video"], 2, "--blind is for the set nano"),
        (["SET", "--format", "mmlu"], 2, "no format 'mmlu'"),
        (["SET", "--format", "worldsense"], 2, "holds no questions"),
    ],
)
def test_errors_are_one_line_with_the_documented_exit_code(evaluate, questions, arguments, code, message):
    got, out, err = evaluate(*(questions if argument == "SET" else argument for argument in arguments))
    assert (got, out, len(err.splitlines())) == (code, "", 1)
    assert message in err


def test_refusals_do_not_wait_for_torch(questions):
    for arguments in (
        ["eval", "--help"],
        ["eval", str(questions), "--set", "speed=9"],
        ["eval", "nano", "--clips", "0"],
    ):
        code = f"import sys; from omniqa.cli.app import run; run({arguments}); print('LOADED', *sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not set(done.stdout.split("LOADED")[1].split()) & {"torch", "transformers", "librosa", "numpy"}


def test_without_a_terminal_a_long_run_says_a_line_a_minute(capfd, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("omniqa.cli.console.time.monotonic", lambda: now[0])
    with console.tally(100, "answers", 10) as show:
        for done in range(11, 31):
            now[0] += 9.0
            show(done, 1)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "omniqa: 17 of 100 answers, 1 failed, about 12 minutes left"
    assert len(lines) == 2
