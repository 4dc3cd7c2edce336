"""Every question is asked by every method once, whatever happens in between."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

import omniqa
from omniqa.errors import MediaError, NotFiniteError, OutOfMemoryError, UsageError
from omniqa.eval.dataset import limited
from omniqa.eval.nano import NanoClips
from omniqa.eval.questions import SetQuestion
from omniqa.eval.report import as_csv, groupings, report
from omniqa.eval.run import POLICY, EvalRows, by_clip, checked, known_answer, read_answers
from omniqa.jobs import merge, runfile
from omniqa.jobs.clips import Shard
from omniqa.jobs.jsonl_store import JSON_LINES
from omniqa.jobs.results import ResultFile
from omniqa.jobs.runner import Job, Runner
from omniqa.media.sampling import ClipOptions
from omniqa.pipeline.engine import OmniQA
from omniqa.pruning.methods.omnifocus import OmniFocus
from omniqa.pruning.variants import method_variants
from omniqa.runtime.generation_options import GenerationOptions
from tests.conftest import ROOT

CLIPS = NanoClips(3, 1, 112)
WHOLE = Shard()
COLUMNS = method_variants(["none", "omnidrop", "omnizip", "random"], [0.5, 0.3])


@pytest.fixture(scope="module")
def qa(nano):
    return omniqa.load(str(nano), device="cpu", dtype="float32")


@pytest.fixture
def start(tmp_path):
    """A run that goes on where the last one with the same file ended."""
    opened = []

    def make(questions=None, made=COLUMNS, clips=CLIPS, shard=WHOLE, path=tmp_path / "results.jsonl", tokens=6):
        while opened:
            opened.pop().close()
        tasks, decoding = by_clip(questions or CLIPS.questions(2)[:4]), GenerationOptions(tokens)
        settings = runfile.make_settings("nano", "auto", ClipOptions(), decoding, {})
        asked = runfile.summary(tasks, [column.name for column in made])
        options = {"shard": shard, "asked": asked, "retry": POLICY.retry, "read": known_answer}
        opened.append(ResultFile(path, JSON_LINES, settings, **options))
        runner = Runner(clips, decoding, EvalRows(opened[0].settings), POLICY, timed_alone=True)
        return Job([task for task in tasks if shard.takes(task.clip.name)], made, runner, opened[0])

    yield make
    for results in opened:
        results.close()


@pytest.fixture
def answers(tmp_path):
    """What the file holds, by question and column."""

    def call(questions, made, path=tmp_path / "results.jsonl"):
        return read_answers(path, questions, made)

    return call


def test_each_clip_is_encoded_once_for_all_questions_methods_and_retentions(qa, start, monkeypatch):
    encoded = []
    encode = OmniQA.encode
    monkeypatch.setattr(
        OmniQA, "encode", lambda self, clip, **named: encoded.append(clip.name) or encode(self, clip, **named)
    )
    questions = CLIPS.questions(2)
    mixed = [questions[index] for index in (0, -1, 1, -2, 2)]
    rows = list(start(mixed).go_on(qa))
    assert len(rows) == 5 * len(COLUMNS)
    assert encoded == ["nano 0", "nano 1"]


def test_methods_that_prune_inside_the_encoder_share_an_encoding_if_their_rule_is_the_same(qa, start, monkeypatch):
    rules, encode = [], qa.encoder.encode

    def watched(ready, progress=None, rule=None, attended=False):
        rules.append(rule)
        return encode(ready, rule=rule, attended=attended)

    monkeypatch.setattr(qa.encoder, "encode", watched)
    methods = ["omnidrop:vision_block=0", "omnidrop:vision_block=0,tds=false", "omnidrop:vision_block=2", "omnidrop"]
    made = method_variants(methods, [0.3])
    questions = [question for question in CLIPS.questions(1) if question.clip == "0"][:2]
    rows = list(start(questions, made).go_on(qa))
    assert [row["status"] for row in rows] == ["ok"] * 8
    assert sorted(str(rule.block if rule else None) for rule in rules) == ["0", "2", "None"]
    clip = CLIPS.source("0", qa.pixels)
    for column in made:
        answer = qa.ask(clip, questions[0].prompt(), column.pruner, decoding=GenerationOptions(6))
        (row,) = [row for row in rows if (row["question"], row["column"]) == (questions[0].number, column.name)]
        assert row["answer"] == answer.text
        assert row["encoders_s"] > 0


def test_answers_are_those_that_ask_gives(qa, start):
    rows = list(start().go_on(qa))
    clip = CLIPS.source("0", qa.pixels)
    question = CLIPS.questions(1)[0]
    for column in COLUMNS:
        pruner = column.pruner
        if pruner.name == "omnizip":  # in so small a clip its steps are larger than what is allowed
            continue
        answer = qa.ask(clip, question.prompt(), pruner.name, pruner.retention, decoding=GenerationOptions(6))
        (row,) = [row for row in rows if (row["question"], row["column"]) == (0, column.name)]
        assert row["answer"] == answer.text
        assert row["achieved"] == answer.retention.achieved
        assert row["expected"] == question.answer


def test_a_second_run_asks_only_what_is_missing(qa, start, answers):
    first = list(start(made=COLUMNS[:2]).go_on(qa))
    assert list(start(made=COLUMNS[:2]).go_on(qa)) == []
    added = list(start().go_on(qa))
    assert {row["column"] for row in added} == {column.name for column in COLUMNS[2:]}
    assert len(answers(CLIPS.questions(2)[:4], COLUMNS)) == len(first) + len(added)


@pytest.mark.parametrize("seed", range(5))
def test_wherever_the_file_was_cut_off_the_next_run_completes_it(qa, start, tmp_path, seed):
    results = tmp_path / "results.jsonl"
    keys = [(row["question"], row["column"]) for row in start(made=COLUMNS[:3]).go_on(qa)]
    data = results.read_bytes()
    cut = random.Random(seed).randrange(len(data))
    results.write_bytes(data[:cut])
    again = [(row["question"], row["column"]) for row in start(made=COLUMNS[:3]).go_on(qa)]
    assert again == keys[data[:cut].count(b"\n") :]
    assert results.read_bytes().startswith(data[: data.rfind(b"\n", 0, cut) + 1])
    assert [(row["question"], row["column"]) for row in map(json.loads, results.open())] == keys


def test_a_killed_command_goes_on_where_it_was(nano, tmp_path):
    out = tmp_path / "out"
    results = out / "results.jsonl"
    arguments = ["eval", "nano", "--clips", "2", "--seconds", "3", "--scenes", "1", "--size", "112", "--limit", "9",
                 "--method", "none", "--method", "random", "--method", "omnidrop", "--max-new-tokens", "6",
                 "--model", str(nano), "-o", str(out), "--json", "-q"]  # fmt: skip
    command = [sys.executable, "-m", "omniqa", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while running.poll() is None and (not results.exists() or results.read_bytes().count(b"\n") < 5):
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    before = results.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert 5 <= whole.count(b"\n") < 27
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert results.read_bytes().startswith(whole)
    keys = [(row["question"], row["column"]) for row in map(json.loads, results.open())]
    assert len(keys) == len(set(keys)) == 27
    made = json.loads(done.stdout)
    assert made == json.loads((out / "report.json").read_text())
    assert [cell["n"] for cell in made["cells"] if cell["by"] == "all"] == [9, 9, 9]


TIMES = {"input_pruning_s", "prefill_s", "encoders_s", "generate_s", "peak_rss_bytes"}


def timeless(rows):
    return {key: {name: value for name, value in row.items() if name not in TIMES} for key, row in rows.items()}


def test_shards_joined_are_the_whole_evaluation_and_leave_nothing_to_ask(qa, start, answers, tmp_path):
    questions = [question for question in CLIPS.questions(5) if question.number % 3 == 0]
    paths = [tmp_path / f"{index}.jsonl" for index in (1, 2)]
    asked = [
        list(start(questions, COLUMNS[:2], shard=Shard(k, 2), path=path).go_on(qa)) for k, path in enumerate(paths, 1)
    ]
    assert all(asked), "both shards have clips"
    merge.join(merge.check(paths), tmp_path / "joined.jsonl")
    assert list(start(questions, COLUMNS[:2], path=tmp_path / "joined.jsonl").go_on(qa)) == []
    list(start(questions, COLUMNS[:2]).go_on(qa))
    whole = answers(questions, COLUMNS[:2])
    assert timeless(answers(questions, COLUMNS[:2], tmp_path / "joined.jsonl")) == timeless(whole)
    assert len(whole) == 2 * len(questions)
    assert runfile.read(tmp_path / "joined.jsonl") == runfile.read(tmp_path / "results.jsonl")


def test_shards_that_were_asked_by_other_methods_are_not_joined(qa, start, tmp_path):
    paths = [tmp_path / f"{index}.jsonl" for index in (1, 2)]
    for index, path in enumerate(paths, 1):
        list(start(made=COLUMNS[:index], shard=Shard(index, 2), path=path).go_on(qa))
    with pytest.raises(UsageError, match="another list of videos and questions"):
        merge.check(paths)


def test_an_instance_is_a_column(qa, start):
    columns = method_variants([OmniFocus(0.4, r_audio=0.6), "none"], [0.3])
    rows = list(start(made=columns).go_on(qa))
    assert [column.name for column in columns] == ["omnifocus:r_audio=0.6 0.4", "none"]
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["method"] for row in rows} == {"omnifocus", "none"}


def test_a_fault_of_omniqa_fails_its_clip_and_the_others_are_asked(qa, start, monkeypatch):
    encode = OmniQA.encode

    def odd(self, clip, **named):
        if clip.name == "nano 0":
            raise ZeroDivisionError("no such thing")
        return encode(self, clip, **named)

    monkeypatch.setattr(OmniQA, "encode", odd)
    rows = list(start([question for question in CLIPS.questions(2) if question.number % 5 == 0], COLUMNS[:1]).go_on(qa))
    assert {row["clip"] for row in rows if "a fault in omniqa: ZeroDivisionError" in row.get("error", "")} == {"0"}
    assert {row["clip"] for row in rows if row["status"] == "ok"} == {"1"}


class Broken:
    """Clips of which the second can't be used."""

    sampling = CLIPS.sampling

    def source(self, clip, pixels):
        if clip == "1":
            raise MediaError("clip 1 is broken")
        return CLIPS.source(clip, pixels)

    def file(self, clip):
        return None


def test_what_fails_is_counted_and_tried_again(qa, start, answers):
    questions = [question for question in CLIPS.questions(2) if question.number % 3 == 0]
    broken = [question for question in questions if question.clip == "1"]
    run = start(questions, COLUMNS[:2], Broken())
    rows = list(run.go_on(qa))
    assert [row["question"] for row in rows if "error" in row] == [q.number for q in broken for _ in range(2)]
    made = report("nano", questions, COLUMNS[:2], answers(questions, COLUMNS[:2]))
    cell = made["cells"][0]
    assert (cell["n"], cell["failed"]) == (len(questions) - len(broken), len(broken))
    assert {failure["error"] for failure in made["failures"]} == {"clip 1 is broken"}
    again = list(start(questions, COLUMNS[:2]).go_on(qa))
    assert [row["question"] for row in again] == [q.number for q in broken for _ in range(2)]
    assert report("nano", questions, COLUMNS[:2], answers(questions, COLUMNS[:2]))["failures"] == []


def test_scores_that_are_no_numbers_fail_a_question_and_at_three_clips_in_a_row_the_run(
    qa, start, answers, monkeypatch
):
    def broken(self, video, questions, pruner, **rest):
        raise NotFiniteError("no numbers")

    monkeypatch.setattr(OmniQA, "ask_all", broken)
    questions = [question for question in CLIPS.questions(4) if question.number % 2 == 0]
    run, rows = start(questions, COLUMNS[:1]), []
    with pytest.raises(NotFiniteError):
        rows.extend(run.go_on(qa))
    failed = answers(questions, COLUMNS[:1]).values()
    assert {row["clip"] for row in failed} == {"0", "1", "2"}
    assert all(row["error"] == "no numbers" for row in failed)


def test_too_little_memory_for_one_answer_leaves_the_others(qa, start, monkeypatch):
    ask_all = OmniQA.ask_all

    def full(self, video, questions, pruner, **rest):
        if pruner.name == "none":
            raise OutOfMemoryError("The device ran out of memory.")
        return ask_all(self, video, questions, pruner, **rest)

    monkeypatch.setattr(OmniQA, "ask_all", full)
    rows = list(start(made=COLUMNS[:2]).go_on(qa))
    assert {row["column"] for row in rows if "error" in row} == {"none"}
    assert {row["column"] for row in rows if "error" not in row} == {COLUMNS[1].name}


def test_a_method_that_does_not_reach_the_retention_is_asked_at_its_floor_and_marked(qa, start, answers):
    made = method_variants(["fastv", "random"], [0.2])
    rows = list(start(made=made).go_on(qa))
    for row in rows:
        assert row["at_floor"] == (row["method"] == "fastv")
        assert row["achieved"] == pytest.approx(0.4 if row["method"] == "fastv" else 0.2, abs=0.02)  # 2 of 5 layers
    questions = CLIPS.questions(2)[:4]
    cells = report("nano", questions, made, answers(questions, made))["cells"]
    assert [(cell["column"], cell["at_floor"]) for cell in cells[:2]] == [("fastv 0.2", 4), ("random 0.2", 0)]


def test_so_is_one_that_learns_from_the_tokens_how_far_it_comes(qa, start):
    for row in start(made=method_variants(["dash"], [0.01])).go_on(qa):
        assert row["status"] == "ok"
        assert row["at_floor"]
        assert row["achieved"] > 0.02


def test_a_limit_draws_clips_and_a_higher_one_only_adds():
    questions = [SetQuestion(3 * clip + k, f"{clip}.mp4", "?", "x") for clip in range(10) for k in range(3)]
    assert limited(questions, None, 0) == limited(questions, 30, 0) == limited(questions, 99, 0) == questions
    seven = limited(questions, 7, 0)
    assert limited(questions, 12, 0)[:7] == seven
    assert len({question.clip for question in seven}) == 3
    assert limited(questions, 7, 1) != seven
    assert sorted(limited(questions, 29, 5), key=lambda q: q.number) != questions


def made_rows(questions, right):
    """Rows of two columns; right: of each question, whether the first and the second have it right."""
    base = {"said": "x", "achieved": 0.3, "at_floor": False, "input_pruning_s": 0.1, "peak_rss_bytes": 5,
            "peak_device_bytes": None, "model": "m"}  # fmt: skip
    return {
        (question.number, column.name): base | {"correct": correct, "prefill_s": float(question.number)}
        for question, pair in zip(questions, right, strict=True)
        for column, correct in zip(COLUMNS[:2], pair, strict=True)
    }


QUESTIONS = [
    SetQuestion(0, "a", "?", "x", groups={"task": "see", "kind": "one"}, chance=0.5),
    SetQuestion(1, "a", "?", "x", groups={"task": "see", "kind": "one"}, chance=0.25),
    SetQuestion(2, "b", "?", "x", groups={"task": "hear", "kind": "one"}),
    SetQuestion(3, "b", "?", "x", groups={"kind": "one"}, chance=0.5),
]


def test_the_report_counts_by_every_group_that_tells_questions_apart():
    rows = made_rows(QUESTIONS, [(1, 1), (1, 0), (0, 0), (1, 0)])
    made = report("set", QUESTIONS, COLUMNS[:2], rows)
    assert list(groupings(QUESTIONS)) == ["all", "task"]
    cells = {(cell["by"], cell["group"], cell["column"]): cell for cell in made["cells"]}
    first, second = (column.name for column in COLUMNS[:2])
    assert set(cells) == {
        (by, group, column)
        for by, group in (("all", "all"), ("task", "hear"), ("task", "see"))
        for column in (first, second)
    }
    overall = cells["all", "all", first]
    assert (overall["correct"], overall["n"], overall["accuracy"], overall["chance"]) == (3, 4, 0.75, None)
    assert (overall["low"], overall["high"]) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert overall["prefill_s"] == pytest.approx(1.6), "pruning and prefill, the median of four"
    assert cells["task", "see", second]["accuracy"] == 0.5
    assert cells["task", "see", second]["chance"] == pytest.approx(0.375)
    assert (made["questions"], made["clips"], made["model"]) == (4, 2, "m")
    (pair,) = made["pairs"]
    known = {"first": first, "second": second, "n": 4, "first_only": 2, "second_only": 0, "difference": 0.5,
             "mid_p": 0.25, "exact_p": 0.5}  # fmt: skip
    assert {name: pair[name] for name in known} == known
    assert (pair["low"], pair["high"]) == (0.5, 0.5), "each clip has one question more"
    assert (overall["clustered_low"], overall["clustered_high"]) == pytest.approx((overall["low"], overall["high"]))
    lines = as_csv(made).splitlines()
    assert lines[0].startswith("by,group,column,method,retention,n,correct,accuracy,low,high,chance")
    assert len(lines) == 1 + len(made["cells"])
    json.dumps(made)


def test_columns_are_compared_on_the_questions_that_both_have_answered():
    rows = made_rows(QUESTIONS, [(1, 1), (1, 0), (0, 0), (1, 0)])
    del rows[1, COLUMNS[0].name]
    rows[3, COLUMNS[1].name] = {"clip": "b", "question": 3, "column": COLUMNS[1].name, "error": "broken"}
    made = report("set", QUESTIONS, COLUMNS[:2], rows)
    assert (made["pairs"][0]["n"], made["pairs"][0]["first_only"]) == (2, 0)
    assert [cell["n"] for cell in made["cells"][:2]] == [3, 3]
    assert [cell["failed"] for cell in made["cells"][:2]] == [0, 1]


def hit(top, rank):
    chance = {"top_chance": 0.5, "top3_chance": 1.0, "rank_chance": 2.0, "iou_chance": 0.2, "first_chance": 0.25}
    return {"evidence": {"top": top, "top3": rank <= 3, "rank": rank, "iou": 0.5 * top, "first": False} | chance}


def test_evidence_is_counted_over_right_answers_by_how_many_spans_and_by_modality():
    questions = [
        replace(question, evidence=spans, groups={"modality": modality})
        for question, spans, modality in zip(
            QUESTIONS,
            [((0, 1),), ((0, 1),), ((0, 1),), ((0, 1), (3, 4))],
            ["video", "audio", "video", "both"],
            strict=True,
        )
    ]
    rows = made_rows(questions, [(1, 1), (1, 0), (1, 0), (1, 0)])
    hits = [hit(True, 1) | {"points_to": "video"}, hit(False, 4) | {"points_to": "audio"}, {}, hit(True, 1)]
    rows = {key: row | hits[key[0]] for key, row in rows.items()}
    first, second = (column.name for column in COLUMNS[:2])
    made = {(cell["group"], cell["column"]): cell for cell in report("set", questions, COLUMNS[:2], rows)["evidence"]}
    assert {key: (cell["n"], cell["top"], cell["rank"]) for key, cell in made.items()} == {
        ("one span", first): (2, 0.5, 2.5),
        ("one span, audio", first): (1, 0.0, 4),
        ("one span, video", first): (1, 1.0, 1),
        ("several spans", first): (1, 1.0, 1),
        ("one span", second): (1, 1.0, 1),
        ("one span, video", second): (1, 1.0, 1),
    }
    assert made["one span", first]["to_video"] == 0.5
    assert made["one span, audio", first]["to_video"] == 0
    assert made["several spans", first]["to_video"] is None
    assert made["one span", first]["top_low"] < 0.5 < made["one span", first]["top_high"]
    assert report("set", QUESTIONS, COLUMNS[:2], made_rows(QUESTIONS, [(1, 1)] * 4))["evidence"] == []


@pytest.mark.parametrize("broken", [None, [], {"top": True}, hit(True, 1)["evidence"] | {"iou": "much"}])
def test_a_line_whose_evidence_lacks_a_measure_is_no_result(broken):
    (row, *_) = made_rows(QUESTIONS, [(True, True)] * 4).values()
    row = {"question": 0, "clip": "a", "column": "none", **row}
    assert checked(row | hit(True, 1))
    with pytest.raises(ValueError, match="evidence"):
        checked(row | {"evidence": broken})


def test_all_are_compared_with_a_baseline_alone_where_there_is_one():
    rows = {}
    every = report("set", QUESTIONS, COLUMNS[:4], rows)["pairs"]
    against = report("set", QUESTIONS, COLUMNS[:4], rows, COLUMNS[1])["pairs"]
    assert len(every) == 6
    assert {pair["second"] for pair in against} == {COLUMNS[1].name}
    assert len(against) == 3
