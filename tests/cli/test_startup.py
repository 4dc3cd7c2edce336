"""From Enter to the first answer: what is refused at once, and what a terminal shows meanwhile."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "librosa")
CURSOR_HIDDEN, CURSOR_SHOWN = b"\x1b[?25l", b"\x1b[?25h"

# The command line in a process of its own, and which of the slow packages it has imported in the end.
REPORT_IMPORTS = f"""
import sys
from omniqa.cli.app import run
code = run(sys.argv[1:])
print("imported:", *[name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""


def python_for_terminal(arguments, interrupt_at=None):
    """All that a terminal of its own gets from Python with these arguments, and the exit code.

    interrupt_at: Ctrl-C is pressed as soon as this is shown.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, *map(str, arguments)])
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the terminal of a process that has ended
            break
        if not piece:
            break
        shown += piece
        if interrupt_at is not None and interrupt_at in shown:
            os.kill(pid, signal.SIGINT)
            interrupt_at = None
    os.close(terminal)
    return shown, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["CLIP", "What?", "--dtype", "int3"], 2, "int3"),
        (["CLIP", "What?", "--device", "mps"], 2, "mps"),
        (["CLIP", "What?", "--device", "cuda:x"], 2, "cuda:x"),
        (["CLIP", "What?", "--device", "cpu:0:1"], 2, "cpu:0:1"),
        (["CLIP", "What?", "--device", "cuda:0,,"], 2, "cuda:0,,"),
        (["CLIP", "What?", "--attn", "fast"], 2, "fast"),
        (["CLIP", "What?", "--method", "fastest"], 2, "fastest"),
        (["CLIP", "What?", "--set", "speed=9"], 2, "speed"),
        (["CLIP", "What?", "--set", "schedule=guess"], 2, "guess"),
        (["CLIP", "What?", "--set", "schedule"], 2, "schedule"),
        (["FOLDER", "What?"], 2, "omniqa batch"),
        (["CLIP", "What", "is", "it?"], 2, "quotes"),
        (["CLIP", "What?", "--start", "60"], 3, "5 s long"),
        (["CLIP", "What?", "--model", "no-such-model"], 4, "no-such-model"),
    ],
)
def test_it_is_refused_before_torch_is_imported(clip, arguments, code, message):
    arguments = [{"CLIP": str(clip), "FOLDER": str(clip.parent)}.get(given, given) for given in arguments]
    model = [] if "--model" in arguments else ["--model", "nano"]
    done = subprocess.run(
        [sys.executable, "-c", REPORT_IMPORTS, "ask", *arguments, *model], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (code, "imported:\n"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


@pytest.mark.parametrize("command", ["bench", "plan"])
def test_other_commands_refuse_a_range_that_is_not_there(omniqa, clip, command):
    question = ["What?"] if command == "bench" else []
    code, _, err = omniqa(command, clip, *question, "--model", "nano", "--start", 60)
    assert (code, len(err.splitlines())) == (3, 1)


def test_bench_wants_the_question_in_quotes_too(omniqa, clip):
    code, _, err = omniqa("bench", clip, "What", "is", "it?", "--model", "nano")
    assert code == 2
    assert "quotes" in err


@pytest.mark.parametrize("arguments", [[], ["cache"], ["nano"]])
def test_help_in_place_of_a_command_ends_without_an_empty_error(omniqa, arguments):
    code, out, err = omniqa(*arguments)
    assert code == 2
    assert "Usage" in out + err
    assert "omniqa:" not in out + err


def test_what_torch_refuses_is_one_line(omniqa, clip, monkeypatch):
    def refuse(*_):
        import torch

        torch.zeros(2) @ torch.zeros(3)

    monkeypatch.setattr("omniqa.pipeline.preprocess.log_mel", refuse)
    code, _, err = omniqa("ask", clip, "What?", "--model", "nano", "-q")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "torch" in err
    assert "size" in err


def test_a_device_that_torch_lacks_is_one_line(omniqa, clip):
    code, _, err = omniqa("ask", clip, "What?", "--model", "nano", "-q", "--device", "cuda:99")
    assert (code, len(err.splitlines())) == (2, 1)


def test_a_spinner_turns_before_torch_is_imported_and_leaves_the_answer_alone(clip):
    # -X importtime writes a line for every module that has been imported, to the same terminal.
    command = ["-X", "importtime", "-m", "omniqa", "ask", clip, "What?", "--model", "nano", "--max-new-tokens", 2]
    shown, code = python_for_terminal(command)
    assert code == 0, shown[-2000:]
    slow = re.search(rb"\| +(torch|transformers|librosa)\b", shown)
    assert slow is not None
    assert shown.index(b"starting") < slow.start()
    assert shown.index(b"loading nano") > slow.start()
    # The spinner is gone and the cursor is back before anything else is written.
    assert shown.count(CURSOR_HIDDEN) == shown.count(CURSOR_SHOWN) > 0
    assert b"starting" not in shown[shown.rindex(CURSOR_SHOWN) :].split(b"stage")[0]


def test_quiet_shows_no_spinner(clip):
    shown, code = python_for_terminal(
        ["-m", "omniqa", "ask", clip, "What?", "--model", "nano", "-q", "--dtype", "auto"]
    )
    assert code == 0
    assert b"\x1b" not in shown
    assert len(shown.strip().splitlines()) == 1


def test_an_interrupt_while_it_spins_gives_the_cursor_back(clip):
    shown, code = python_for_terminal(["-m", "omniqa", "ask", clip, "What?", "--model", "nano"], b"starting")
    assert code == 130
    assert shown.rindex(CURSOR_SHOWN) > shown.rindex(CURSOR_HIDDEN)
    assert b"interrupted" in shown
    assert b"Traceback" not in shown


def test_time_for_imports_is_reported_as_that(clip):
    done = subprocess.run(
        [sys.executable, "-m", "omniqa", "ask", clip, "What?", "--model", "nano", "--json", "-q"],
        capture_output=True,
        text=True,
        check=True,
    )
    timing = json.loads(done.stdout)["timing_s"]
    assert timing["import"] > 0
    assert timing["total"] >= timing["import"] + timing["load"] + timing["time_to_first_token"]
