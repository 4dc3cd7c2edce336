"""What a user sees of `omniqa batch` and `omniqa merge`."""

import csv
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import termios
import time

import pytest

from omniqa.errors import MediaError
from omniqa.pipeline.engine import OmniQA
from tests.conftest import ROOT
from tests.eval.conftest import nano  # noqa: F401 (a fixture)
from tests.jobs.conftest import media  # noqa: F401 (a fixture)
from tests.near import near

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TIMES = {"timing_s": None, "memory": None}


@pytest.fixture
def batch(omniqa, nano):  # noqa: F811
    """`omniqa batch` with a small random model and short answers."""

    def call(*arguments):
        return omniqa("batch", "--model", nano, "--max-new-tokens", 3, "--fps", 1, *arguments)

    return call


@pytest.fixture
def command(nano, media):  # noqa: F811
    """`omniqa batch` about all clips, two questions each, for a process of its own."""
    options = ["--model", str(nano), "--max-new-tokens", "3", "--fps", "1"]
    return [
        sys.executable,
        "-m",
        "omniqa",
        "batch",
        str(media),
        "-Q",
        "What is seen?",
        "-Q",
        "What is heard?",
        *options,
    ]


@pytest.fixture
def shell(nano):  # noqa: F811
    """Run a shell line with `omniqa` and `batch` in it, in processes of its own."""

    def call(line, **options):
        line = (
            f'omniqa() {{ "{sys.executable}" -m omniqa "$@"; }}; '
            f'batch() {{ omniqa batch --model "{nano}" --max-new-tokens 2 --fps 1 "$@"; }}; {line}'
        )
        return subprocess.run(["bash", "-c", line], capture_output=True, env=ENVIRONMENT, **options)

    return call


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def timeless(path):
    return [row | TIMES for row in rows(path.read_text())]


def test_lines_go_to_stdout_and_nothing_else_does(batch, omniqa, media, nano):  # noqa: F811
    code, out, err = batch(media, "What is seen?")
    assert code == 0
    assert [row["video"] for row in rows(out)] == [str(media / name) for name in ("a.mp4", "b.mkv", "sub/deep/c")]
    assert "3 answers about 3 clips" in err
    assert "waited" in err
    assert "of tokens saved" in err
    assert "left out, as neither video nor sound: 1 file" in err
    options = ["--model", nano, "--max-new-tokens", 3, "--fps", 1, "--json"]
    _, asked, _ = omniqa("ask", media / "a.mp4", "What is seen?", *options)
    expected = json.loads(asked)
    got = rows(out)[0]
    assert {name: got[name] for name in expected} | TIMES == near(expected | TIMES)


def test_quiet_leaves_stderr_to_errors(batch, media, tmp_path):  # noqa: F811
    assert batch(media, "What?", "-q")[2] == ""
    (tmp_path / "broken.mp4").write_text("broken")
    code, _, err = batch(tmp_path, "What?", "-q")
    assert (code, len(err.splitlines())) == (6, 1)


def test_the_same_command_goes_on_where_it_ended(batch, media, tmp_path):  # noqa: F811
    out = tmp_path / "out.jsonl"
    assert batch(media / "a.mp4", "What?", "-o", out)[:2] == (0, "")
    code, _, err = batch(media, "What?", "-o", out)
    assert code == 0
    assert "there already: 1 line" in err
    assert "2 answers about 2 clips" in err
    before = out.read_bytes()
    code, _, err = batch(media, "What?", "-o", out)
    assert (code, out.read_bytes()) == (0, before)
    assert "there already: 3 lines" in err
    code, _, err = batch(media, "What?", "-o", out, "--retention", 0.5)
    assert code == 2
    assert "retention was 0.3, not 0.5" in err
    assert batch(media, "What?", "-o", out, "--retention", 0.5, "--append")[0] == 0
    assert [row["retention"]["target"] for row in rows(out.read_text())] == [0.3] * 3 + [0.5] * 3


def test_files_that_have_changed_are_asked_about_again_with_a_note(batch, media, tmp_path):  # noqa: F811
    clips, out = tmp_path / "clips", tmp_path / "out.csv"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (clips / name).write_bytes((media / "a.mp4").read_bytes())
    assert batch(clips, "What?", "-o", out)[0] == 0
    for name in ("a.mp4", "b.mp4"):
        os.utime(clips / name, (0, 0))
    code, _, err = batch(clips, "What?", "-o", out)
    assert code == 0
    assert "2 files have changed since they were asked about; they are asked about again" in err
    assert "2 answers about 2 clips" in err
    with out.open(newline="") as file:
        assert [(row["file.bytes"], float(row["file.mtime_s"])) for row in csv.DictReader(file)] == [
            (str((media / "a.mp4").stat().st_size), 0)
        ] * 2


def test_failures_are_told_by_cause_and_asked_again_when_wanted(batch, media, tmp_path):  # noqa: F811
    broken = ("one [b]1.mp4", "two 2\n\udcff.mp4")
    for name in broken:
        (tmp_path / name).write_bytes((media / "a.mp4").read_bytes()[:700])
    (tmp_path / "empty.mov").touch()
    (tmp_path / "fine.mp4").write_bytes((media / "a.mp4").read_bytes())
    out = tmp_path / "results.jsonl"
    for _ in range(2):  # the second time nothing is asked, and the failures are still there
        code, _, err = batch(tmp_path, "What?", "-o", out)
        assert code == 6
        assert err.splitlines()[-1] == "omniqa: 3 of 4 questions failed; --retry-failed asks them again."
        causes = [re.split(r" {2,}", line.strip()) for line in err.splitlines() if "the file is" in line]
        assert [row[1:3] for row in causes] == [["2", "2"], ["1", "1"]]
        assert causes[0][3].endswith("one [b]1.mp4")
    for name in (*broken, "empty.mov"):
        (tmp_path / name).write_bytes((media / "a.mp4").read_bytes())
    assert batch(tmp_path, "What?", "-o", out, "--retry-failed")[0] == 0
    assert sorted(row["status"] for row in rows(out.read_text())) == ["ok"] * 4


def test_questions_from_a_file_carry_their_fields_through(batch, media, tmp_path):  # noqa: F811
    questions = tmp_path / "questions.csv"
    questions.write_text('id,video,question,answer,task\nq1,a.mp4,What?,red,"seeing, plainly"\nq2,sub/deep/c,Who?,,\n')
    code, out, _ = batch(media, "--questions", questions)
    assert code == 0
    first, second = rows(out)
    assert (first["id"], first["video"]) == ("q1", "a.mp4")
    assert first["fields"] == {"answer": "red", "task": "seeing, plainly"}
    assert (second["id"], second["fields"]) == ("q2", {})


def test_a_question_and_further_ones_go_together(batch, media):  # noqa: F811
    code, out, err = batch(media / "a.mp4", "What is seen?", "-Q", "Who?", "-Q", "Where")
    assert code == 0, err
    assert [row["question"] for row in rows(out)] == ["What is seen?", "Who?", "Where"]


def test_csv_holds_the_same_and_is_gone_on_with(batch, media, tmp_path):  # noqa: F811
    out = tmp_path / "out.csv"
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "What?", "task": "a"}\n{"question": "Who,\\n \\"really\\"?"}\n')
    assert batch(media / "a.mp4", "--questions", questions, "-o", out)[0] == 0
    assert batch(media, "--questions", questions, "-o", out)[0] == 0
    _, lines, _ = batch(media, "--questions", questions)
    with out.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6
    for cells, row in zip(table, rows(lines), strict=True):
        for name in ("id", "video", "question", "answer", "status"):
            assert cells[name] == row[name]
        assert cells["fields.task"] == row["fields"].get("task", "")
        assert json.loads(cells["evidence"]) == row["evidence"]
        for group in ("retention", "tokens", "media"):
            for name, value in row[group].items():
                text = cells[f"{group}.{name}"]
                assert (text if isinstance(value, str) else json.loads(text) if text else None) == value
        assert {f"timing_s.{name}" for name in row["timing_s"]} <= set(cells)
        assert {f"memory.{name}" for name in row["memory"]} <= set(cells)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
def test_killed_at_any_moment_and_gone_on_with_it_gives_the_undisturbed_result(command, tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    subprocess.run([*command, "-q", "-o", whole], env=ENVIRONMENT, check=True)
    moments = random.Random(0)
    for lines in (0, 1, 3, 5):
        running = subprocess.Popen([*command, "-q", "-o", out], env=ENVIRONMENT)
        while running.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < lines):
            time.sleep(0.001)
        time.sleep(moments.random() * 0.05)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        with out.open("ab") as file:  # as if the kill had come in the middle of a line
            file.write(b'{"id": "0123", "stat')
    subprocess.run([*command, "-q", "-o", out], env=ENVIRONMENT, check=True)
    assert timeless(out) == near(timeless(whole))


@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
def test_ctrl_c_is_130_one_line_and_a_whole_file(command, tmp_path):
    out = tmp_path / "out.jsonl"
    # So many questions that it can't be through before it is told to stop.
    asked = [*command, *(word for number in range(500) for word in ("-Q", f"What is thing {number}?"))]
    running = subprocess.Popen(
        [*asked, "-o", out],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    while running.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < 2):
        time.sleep(0.001)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    done = len(rows(out.read_text()))
    assert out.read_bytes().endswith(b"\n")
    assert 1 <= done < 4 * 502
    *_, kept, last = err.splitlines()
    counted = int(kept.split()[1])
    assert kept == f"omniqa: {counted} of {4 * 502} lines are in {out}; the same command goes on from there"
    assert counted == done
    assert last == "omniqa: interrupted"


def test_an_interrupt_while_decoding_is_130_too(batch, media, monkeypatch):  # noqa: F811
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(OmniQA, "encode", interrupt)
    code, out, err = batch(media, "What?")
    assert (code, out) == (130, "")
    assert err.endswith("omniqa: interrupted\n")


def test_a_closed_pipe_and_a_full_disk_are_one_line(shell, media):  # noqa: F811
    done = shell('batch "$0" "What?" "-Q" "Who?" -q | head -c 1; echo "${PIPESTATUS[0]}"'.replace("$0", str(media)))
    assert b"Traceback" not in done.stderr
    if os.path.exists("/dev/full"):
        for target in (">/dev/full", "-o /dev/full"):
            done = shell(f'batch "{media}" -Q "What?" -q {target}')
            assert done.returncode == 2
            assert done.stderr.endswith(b"can't be written to (No space left on device).\n")
            assert len(done.stderr.splitlines()) == 1


def test_a_disk_that_fills_up_leaves_a_whole_file_that_is_gone_on_with(shell, command, tmp_path):
    out = tmp_path / "out.jsonl"
    line = " ".join(f"'{word}'" for word in [*command, "-q", "-o", str(out)])
    done = shell(f"trap '' XFSZ; ulimit -f 4; {line}")
    assert done.returncode == 2
    assert done.stderr.endswith(b"can't be written to (File too large).\n")
    kept = rows(out.read_text())
    assert 0 < len(kept) < 6
    assert out.read_bytes().endswith(b"\n")
    subprocess.run([*command, "-q", "-o", out], env=ENVIRONMENT, check=True)
    assert len({row["id"] for row in rows(out.read_text())}) == len(rows(out.read_text())) == 6


def test_names_of_any_kind_come_through_a_pipe(shell, media, tmp_path):  # noqa: F811
    names = [b"two words.mp4", b"new\nline.mp4", b"--leading.mp4", b"\xff\xfe.mp4", "é 狗.mp4".encode()]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write((media / "a.mp4").read_bytes())
    listed = shell("find . -name '*.mp4' -print0 | batch -0 - 'What?' -q", cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert sorted(os.fsencode(row["video"]) for row in rows(listed.stdout)) == sorted(names)
    named = shell("batch -q -Q 'What?' -- *.mp4", cwd=tmp_path)
    assert [row["video"] for row in rows(named.stdout)] == sorted(row["video"] for row in rows(named.stdout))
    assert {row["id"] for row in rows(named.stdout)} == {row["id"] for row in rows(listed.stdout)}


def test_a_name_with_a_leading_dash_can_be_asked_about(shell, media, nano, tmp_path):  # noqa: F811
    (tmp_path / "-x.mp4").write_bytes((media / "a.mp4").read_bytes())
    done = shell(f'omniqa ask --model "{nano}" --max-new-tokens 1 --json -q -- -x.mp4 "What?"', cwd=tmp_path)
    assert json.loads(done.stdout)["video"] == "-x.mp4"


def test_on_ray_stdout_has_the_lines_and_quiet_is_quiet(batch, media):  # noqa: F811
    arguments = [media, "What is seen?", "-q"]
    code, plain, _ = batch(*arguments)
    got = batch(*arguments, "--engine", "ray", "--ray-address", "local", "--device", "cpu")
    assert (got[0], got[2]) == (code, "") == (0, "")
    found = {row["id"]: row | TIMES for row in rows(got[1])}
    assert found == {row["id"]: row | TIMES for row in rows(plain)}
    assert len(got[1].splitlines()) == len(found)


def test_shards_together_ask_everything_once_and_merge(batch, omniqa, media, tmp_path):  # noqa: F811
    parts = [tmp_path / f"part-{index}.jsonl" for index in (1, 2, 3)]
    for index, part in enumerate(parts, start=1):
        assert batch(media, "What?", "--shard", f"{index}/3", "-o", part)[0] == 0
    code, _, err = omniqa("merge", *parts[:2], "-o", tmp_path / "all.jsonl")
    assert (code, err) == (2, "omniqa: Of 3 shards, these are missing: 3/3.\n")
    assert not (tmp_path / "all.jsonl").exists()
    code, out, err = omniqa("merge", *parts)
    assert (code, err) == (0, "omniqa: 3 lines of 3 shards joined\n")
    assert omniqa("merge", *parts, "-o", tmp_path / "all.jsonl")[0] == 0
    assert (tmp_path / "all.jsonl").read_text() == out
    _, whole, _ = batch(media, "What?")
    assert {row["id"] for row in rows(out)} == {row["id"] for row in rows(whole)}
    filled = next(index for index, part in enumerate(parts, start=1) if part.stat().st_size)
    code, _, err = batch(media, "What?", "--shard", f"{filled}/4", "-o", parts[filled - 1])
    assert (code, f"holds shard {filled}/3, not {filled}/4" in err) == (2, True)


def test_failures_in_shards_are_in_the_merged_exit_code(batch, omniqa, tmp_path):
    (tmp_path / "broken.mp4").write_text("broken")
    part = tmp_path / "part.jsonl"
    assert batch(tmp_path, "What?", "-o", part)[0] == 6
    code, out, err = omniqa("merge", part, "-q")
    assert (code, len(rows(out)), len(err.splitlines())) == (6, 1, 1)


def test_on_a_terminal_there_is_a_bar(command, tmp_path):
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 60))
    running = subprocess.Popen([*command, "-o", tmp_path / "out.jsonl"], env=ENVIRONMENT, stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(reader, 4096)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        shown += piece
    assert running.wait() == 0
    for words in (b"clips/s", b"saved", b"left"):
        assert words in shown
    bars = [line for line in re.split(rb"[\r\n]|\x1b\[2K", shown) if re.search(rb"\d/\d clips ", line)]
    assert {re.search(rb"(\d+)/(\d+) clips", line).groups()[1] for line in bars} <= {b"2", b"3"}, "one has no suffix"
    assert all(re.search(rb"\d:\d\d:\d\d", line) for line in bars)
    assert all(len(re.sub(rb"\x1b\[[0-9;?]*[a-z]", b"", line).decode()) <= 60 for line in bars)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Give videos"),
        (["What?"], 2, "Give videos"),
        (["CLIPS"], 2, "Give videos"),
        (["CLIPS", "CLIPS/a.mp4"], 2, "Give the question after it"),
        (["What is seen?", "-Q", "Who?"], 2, "Give videos"),
        (["CLIPS", "What", "-Q", "Who?"], 3, "What was not found. A question needs quotes"),
        (["CLIPS", "What?", "--questions", "x.jsonl"], 3, "What? was not found"),
        (["CLIPS", "my clip.mp4", "-Q", "Who?"], 3, "my clip.mp4 was not found"),
        (["CLIPS", "CLIPS/my clip", "-Q", "Who?"], 3, "my clip was not found"),
        (["gone.mp4", "What?"], 3, "gone.mp4 was not found"),
        (["CLIPS", " "], 2, "empty"),
        (["CLIPS", "-Q", "What?", "--questions", "x.jsonl"], 2, "not with both"),
        (["CLIPS", "--questions", "x.jsonl"], 2, "x.jsonl"),
        (["CLIPS", "--questions", "x.txt"], 2, "ends in .jsonl"),
        (["-", "--questions", "-"], 2, "both come from stdin"),
        (["CLIPS", "What?", "-0"], 2, "names on stdin"),
        (["CLIPS", "What?", "--shard", "3/2"], 2, "I/N"),
        (["CLIPS", "What?", "--format", "xml"], 2, "jsonl or csv"),
        (["CLIPS", "What?", "--retry-failed"], 2, "-o"),
        (["CLIPS", "What?", "--prefetch", "-1"], 2, "prefetch"),
        (["CLIPS", "What?", "--method", "fastest"], 2, "none, omnidrop"),
        (["CLIPS", "What?", "--fps", "0"], 2, "frame rate"),
        (["CLIPS", "What?", "--audio-track", "0"], 2, "counted from 1"),
        (["CLIPS", "What?", "--engine", "spark"], 2, "plain or ray"),
        (["CLIPS", "What?", "--engine", "ray", "--num-actors", "0"], 2, "at least one actor"),
        (["CLIPS", "What?", "-o", "CLIPS/a.mp4"], 2, "a.mp4"),
        (["CLIPS", "What?", "-o", "no/such/folder/out.jsonl"], 2, "can't be written"),
        (["CLIPS/sub/deep/../../notes", "What?"], 6, "1 of 1 questions failed"),
        (["EMPTY", "What?"], 3, "no files are there"),
    ],
)
def test_errors_have_the_documented_exit_code(batch, media, tmp_path, arguments, code, message):  # noqa: F811
    before = (media / "a.mp4").read_bytes()
    places = {"CLIPS": str(media), "EMPTY": str(tmp_path)}
    given = [next((word.replace(key, at) for key, at in places.items() if key in word), word) for word in arguments]
    got, out, err = batch(*given, "-q")
    assert (got, len(err.splitlines())) == (code, 1)
    assert message in err
    assert out == "" or code == 6
    assert (media / "a.mp4").read_bytes() == before


def test_a_folder_without_any_media_is_exit_code_3(batch, tmp_path):
    (tmp_path / "notes.txt").write_text("no clip")
    code, _, err = batch(tmp_path, "What?", "-q")
    assert (code, err) == (3, "omniqa: None of the files is video or sound.\n")
    for shard in ("1/2", "2/2"):  # a part of a whole that may hold some
        assert batch(tmp_path, "What?", "-q", "--shard", shard) == (0, "", "")


def test_refusals_do_not_wait_for_torch(media):  # noqa: F811
    for arguments in (["batch", "--help"], ["merge", "--help"], ["batch", str(media), "What?", "--fps", "0"]):
        code = f"import sys; from omniqa.cli.app import run; run({arguments}); print('LOADED', *sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not set(done.stdout.split("LOADED")[1].split()) & {"torch", "transformers", "librosa", "numpy", "av"}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_cut_and_subtitles_are_written_for_each_clip(batch, media, tmp_path, form):  # noqa: F811
    out = tmp_path / f"out.{form}"
    assert batch(media, "-Q", "What is seen?", "-o", out)[0] == 0
    wanted = ("--cut", tmp_path / "cuts", "--subtitles", tmp_path / "all.vtt")
    code, _, err = batch(media, "-Q", "What is seen?", "-Q", "What is heard?", "-o", out, *wanted)
    assert code == 0, err
    with out.open(newline="") as file:
        lines = rows(file.read()) if form == "jsonl" else list(csv.DictReader(file))
    said = [json.loads(line["evidence_spans"]) if form == "csv" else line["evidence_spans"] for line in lines]
    cues = [path.read_text(encoding="utf-8").count(" --> ") for path in tmp_path.glob("all-*.vtt")]
    assert sum(cues) == sum(map(bool, said)) >= len(cues) > 1
    new = [(line, spans) for line, spans in zip(lines, said, strict=True) if line["question"] == "What is heard?"]
    cuts = [json.loads(line["cuts"]) if form == "csv" else line["cuts"] for line, _ in new]
    assert [len(paths) for paths in cuts] == [len(spans) for _, spans in new]
    assert {path for paths in cuts for path in paths} == {str(path) for path in (tmp_path / "cuts").iterdir()}


def test_subtitles_of_one_clip_are_in_the_file_itself(batch, media, tmp_path):  # noqa: F811
    clip = sorted(media.glob("*.mp4"))[0]
    code, out, err = batch(clip, "-Q", "What is seen?", "-Q", "What is heard?", "--subtitles", tmp_path / "a.srt")
    assert code == 0, err
    assert len(rows(out)) == (tmp_path / "a.srt").read_text(encoding="utf-8").count(" --> ") == 2


def test_evidence_that_can_not_be_cut_out_is_a_warning(batch, media, tmp_path, monkeypatch):  # noqa: F811
    def fail(*arguments):
        raise MediaError("it can't be cut.")

    monkeypatch.setattr("omniqa.media.cut.cut", fail)
    code, out, _ = batch(sorted(media.glob("*.mp4"))[0], "What is seen?", "--cut", tmp_path)
    (line,) = rows(out)
    assert (code, line["status"], line["cuts"]) == (0, "ok", [])
    assert any("it can't be cut" in warning for warning in line["media"]["warnings"])


def test_reports_are_written_one_an_answer_and_named_in_the_lines(batch, media, tmp_path):  # noqa: F811
    clip = sorted(media.glob("*.mp4"))[0]
    code, out, err = batch(clip, "-Q", "What is seen?", "-Q", "What is heard?", "--reports", tmp_path / "pages")
    assert code == 0, err
    lines = rows(out)
    assert {line["report"] for line in lines} == {str(path) for path in (tmp_path / "pages").iterdir()}
    for line in lines:
        assert f"{line['question']}</h1>" in (tmp_path / line["report"]).read_text(encoding="utf-8")


def test_a_report_that_can_not_be_written_is_a_warning(batch, media, tmp_path, monkeypatch):  # noqa: F811
    def fail(*arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omniqa.pipeline.answer.Answer.report", fail)
    code, out, _ = batch(sorted(media.glob("*.mp4"))[0], "What is seen?", "--reports", tmp_path)
    (line,) = rows(out)
    assert (code, line["status"], line["report"]) == (0, "ok", None)
    assert any("No space left" in warning for warning in line["media"]["warnings"])
