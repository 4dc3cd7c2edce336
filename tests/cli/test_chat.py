"""`omniqa chat`: in a pipe one answer a line, on a terminal a conversation that Ctrl-C does not end."""

import io
import json
import os
import re
import sys

import pytest

from omniqa.cli import chat_session
from omniqa.errors import UsageError
from tests.conftest import ROOT

QUESTIONS = ("What is heard last?", "Which coloured shape is shown first?", "What happens, in order?")
TIGER = "sample_media/tiger.mp4"


@pytest.fixture
def chat(omniqa, monkeypatch):
    """Run `omniqa chat` with nano and these lines on stdin."""
    monkeypatch.chdir(ROOT)

    def call(*lines, video=TIGER, options=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return omniqa("chat", video, "--model", "nano", *options)

    return call


def test_in_a_pipe_each_line_is_a_question_and_each_answer_a_line(chat):
    code, out, err = chat(QUESTIONS[0], "", QUESTIONS[1])
    assert code == 0, err
    assert len(out.splitlines()) == 2
    assert all(out.splitlines())
    assert err.count("kept 30 %") == 2


def test_json_has_one_object_a_question_and_the_clip_is_encoded_once(chat):
    code, out, err = chat(*QUESTIONS, options=("--json", "-q"))
    assert (code, err) == (0, "")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["question"] for answer in answers] == list(QUESTIONS)
    assert answers[0]["timing_s"]["vision_encoder"] > 0
    assert [answer["timing_s"]["vision_encoder"] for answer in answers[1:]] == [0, 0]
    assert answers[2]["tokens"]["text"] > answers[0]["tokens"]["text"], "earlier turns are part of the prompt"
    assert {answer["video"] for answer in answers} == {TIGER}


def test_a_question_that_fails_leaves_its_line_empty_and_the_exit_code_says_so(chat):
    code, out, err = chat("x" * 20_001, QUESTIONS[0], options=("-q",))
    first, second = out.splitlines()
    assert (code, first, bool(second)) == (6, "", True)
    assert err.count("at most 20,000") == 1


def test_commands_work_in_a_pipe_and_write_nothing_to_stdout(chat, tmp_path):
    lines = ("/method omnidrop:tds=false 20%", QUESTIONS[0], "/evidence", f"/save {tmp_path / 'a b.json'}",
             f"/save '{tmp_path / 'talk.md'}'", f"/report {tmp_path / 'talk.html'}",
             "/open sample_media/hello.mp4", QUESTIONS[1], "/help")  # fmt: skip
    code, out, err = chat(*lines)
    assert code == 0, err
    assert len(out.splitlines()) == 2
    assert "answers come by omnidrop:tds=false 0.2" in err
    assert "attention" in err
    assert all(command in err for command in chat_session.COMMANDS)
    (saved,) = json.loads((tmp_path / "a b.json").read_text())
    assert (saved["question"], saved["retention"]["target"]) == (QUESTIONS[0], 0.2)
    report = (tmp_path / "talk.html").read_text()
    assert report.startswith("<!doctype html>")
    assert QUESTIONS[0] in report
    page = (tmp_path / "talk.md").read_text()
    assert page.startswith(f"# {TIGER}\n\n> {QUESTIONS[0]}\n\n{saved['answer']}\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/evidence", "Nothing has been answered"), ("/save", "Nothing has been answered"),
        ("/report a.html", "Nothing has been answered"),
        ("/sing", "no command /sing"), ("/method fastest", "fastest"), ("/method omnidrop much", "no share"),
        ("/method omnidrop 0.2 0.3", "/method NAME"), ("/open", "Name a file"), ("/open none.mp4", "none.mp4"),
    ],
)  # fmt: skip
def test_a_command_that_makes_no_sense_ends_a_pipe_with_one_line(chat, line, said):
    code, out, err = chat(line, options=("-q",))
    assert (code in (2, 3), out, err.count("\n")) == (True, "", 1)
    assert said in err


def test_nothing_is_saved_over_a_file(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"kept")
    with pytest.raises(UsageError, match="is there already"):
        chat_session.write_anew(str(tmp_path / "clip.mp4"), "other")
    with pytest.raises(UsageError, match="can't be written"):
        chat_session.write_anew(str(tmp_path / "none" / "a"), "other")
    assert (tmp_path / "clip.mp4").read_bytes() == b"kept"


def test_stdin_can_not_be_both(chat):
    code, _, err = chat(QUESTIONS[0], video="-")
    assert (code, "Name a file" in err) == (2, True)


CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


def test_a_conversation_on_a_terminal_outlives_ctrl_c_and_a_resize(checkpoint, clip, tmp_path):
    pexpect = pytest.importorskip("pexpect", reason="needs pexpect, which acts as a terminal")
    pytest.importorskip("prompt_toolkit", reason="needs prompt_toolkit, the line editor")
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }  # fmt: skip
    arguments = ["-m", "omniqa", "chat", str(clip), "--model", str(checkpoint), "--min-pixels", "784"]
    child = pexpect.spawn(
        sys.executable, [*arguments, "--max-new-tokens", "400"], env=environment, cwd=tmp_path, encoding="utf-8",
        codec_errors="replace", timeout=180, dimensions=(24, 80),
    )  # fmt: skip
    shown = child.logfile_read = io.StringIO()
    prompt = "\\?2004h"  # the editor asks for bracketed paste whenever it begins a line
    try:
        child.expect(prompt)
        child.send("What is seen?\r")
        child.expect("\\?2004l")
        child.expect(r"\w{2,}[^\n]*\w", searchwindowsize=200)
        child.sendintr()
        child.expect("omniqa: stopped")
        child.expect(prompt)
        child.setwinsize(40, 50)
        child.send("What is that?\x7f\x7f now?\r")
        child.expect(" · kept 30 %")
        child.expect(prompt)
        child.send("half a line")
        child.sendintr()
        child.expect(prompt)
        child.send("/ev\t")
        child.expect("/evidence|idence")  # the rest of the word, or all of it anew
        child.send("\r")
        child.expect("attention")
        child.expect(prompt)
        child.send("/save talk.md\r")
        child.expect("written to talk.md")
        child.expect(prompt)
        child.send("/nothing\r")
        child.expect("There is no command /nothing")
        child.expect(prompt)
        child.send("\x1b[A\x1b[A\x1b[A\x1b[A\r")  # four lines back
        child.expect(" · kept 30 %")
        child.expect(prompt)
        child.send("\x04")
        child.expect(pexpect.EOF)
    finally:
        child.close()
    assert child.exitstatus == 0, CONTROLS.sub("", shown.getvalue())
    page = (tmp_path / "talk.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("> ")] == ["> What is tha now?"]
    history = tmp_path / "state" / "omniqa" / "chat-history"
    assert "+What is tha now?" in history.read_text().splitlines()
    assert history.stat().st_mode & 0o077 == 0
