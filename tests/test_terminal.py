"""What reaches the terminal is safe to show, and streams that are closed or full end a command as documented."""

import ast
import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniqa import terminal
from omniqa.cli.console import AnswerStream, console
from tests.conftest import ROOT

HOSTILE = {
    "clear the screen": "\x1b[2J",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\",
    "C1 CSI": "\x9b31m",
    "C1 OSC": "\x9d0;x\x9c",
    "bidi override": "\u202egpj.exe",
    "bidi isolate": "\u2066x\u2069",
    "backspace": "ab\x08\x08cd",
    "carriage return": "no\rok",
    "delete": "\x7f",
    "line separator": "\u2028",
    "surrogate": "\udc9b",
}
ALLOWED = {"omniqa/terminal.py"}
OURS = "Console()"  # of omniqa.cli.console; rich's is told where to write


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_control_characters_become_escapes(text):
    safe = terminal.printable(text)
    assert safe.isprintable()
    assert "\\" in safe


@given(st.text())
def test_a_text_in_pieces_is_as_safe_as_the_whole(text):
    assert "".join(map(terminal.printable, text)) == terminal.printable(text)
    left = {unicodedata.category(one) for one in terminal.printable(text, terminal.LAYOUT) if one not in "\n\t"}
    assert not left & {"Cc", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize("text", ["狗 ja!", "naïve", "שלום", "👩\u200d🚀", "क्\u200cष"])
def test_letters_of_all_languages_stay(text):
    assert terminal.printable(text) == text


def test_answers_messages_tables_and_heads_are_safe(capsys):
    console.hush(False)  # whatever ran before
    name = "".join(HOSTILE.values())
    with terminal.guarded():
        stream = AnswerStream([f"{name}\n"])
        for piece in ("two\nlines\t", "\x1b", "[2J", name):
            stream(piece)
        stream.end()
        console.error(name)
        console.note(name)
        console.notes((name, ">n"), [(name, "[red]7")])
        console.results((name,), [(name,), ("[bold]markup[/bold]",)])
        console.result(name)
        console.remark(name)
        sys.stderr.write(f"a library's warning: {name}\n")
    out, err = capsys.readouterr()
    assert "two\nlines\t\\x1b[2J" in out
    assert "[bold]markup[/bold]" in out
    assert "[red]7" in err
    for text in (out, err):
        assert all(one.isprintable() or one in "\n\t" for one in text)


def test_json_escapes_what_a_terminal_must_not_get(capfd):
    value = {"answer": "".join(HOSTILE.values())}
    console.print_json(value)
    out = capfd.readouterr().out
    assert out[:-1].isprintable()
    assert json.loads(out) == value


def test_data_is_unchanged_in_a_pipe_and_safe_on_a_terminal():
    data = b"a,\x1b[2J\r\n"
    ours, theirs = os.pipe()
    leader, follower = pty.openpty()
    try:
        assert terminal.for_file(data, theirs) == data
        assert terminal.for_file(data, follower) == b"a,\\x1b[2J\n"
    finally:
        for file in (ours, theirs, leader, follower):
            os.close(file)


def _writes_to_the_terminal(node):
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in {"print", "input", "typer.echo", "typer.secho", "traceback.print_exc", "breakpoint"}:
            return True
        return called.split(".")[-1] == "Console" and ast.unparse(node) != OURS
    return isinstance(node, ast.Attribute) and ast.unparse(node) in {
        f"sys.{name}.{what}" for name in ("stdout", "stderr", "__stdout__", "__stderr__")
        for what in ("write", "writelines", "buffer", "flush")
    } - {"sys.stdout.flush"}  # fmt: skip


def test_nothing_else_writes_to_the_terminal():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "omniqa").rglob("*.py"))
        if str(path.relative_to(ROOT)) not in ALLOWED
        for node in ast.walk(ast.parse(path.read_text()))
        if _writes_to_the_terminal(node)
    ]
    assert found == []


def shell(line):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", f'omniqa() {{ "{sys.executable}" -m omniqa "$@"; }}; {line}'],
        capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["--help", "--version", "plan", "plan --json", "ask clip.mp4 'What is it?'"])
@pytest.mark.parametrize("closed", [">&-", ">/dev/full"])
def test_an_unwritable_stdout_is_one_line_and_exit_code_2(command, closed):
    done = shell(f"omniqa {command} {closed}")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "stdout can't be written to" in done.stderr


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
def test_an_unwritable_stderr_changes_neither_result_nor_exit_code(closed):
    assert shell(f"omniqa plan --json {closed}").returncode == 0
    done = shell(f"omniqa ask nowhere.mp4 'What is it?' {closed}")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


@pytest.mark.parametrize("command", ["ask - 'What is it?'", "ask pyproject.toml -", "batch - -Q What"])
def test_a_closed_stdin_is_one_line_and_exit_code_2(command):
    done = shell(f"cd {ROOT} && omniqa {command} <&-")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "stdin can't be read" in done.stderr


def test_a_reader_that_has_gone_ends_quietly():
    done = shell("omniqa plan | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_missing_terminal_has_no_width():
    assert terminal.columns(io.StringIO()) is None
    with contextlib.suppress(OSError), open(os.devnull) as file:
        assert terminal.columns(file) is None


@pytest.mark.parametrize("debug", [False, True])
def test_a_fault_of_omniqas_own_is_one_safe_line_and_a_traceback_only_with_debug(debug):
    code = (
        "import sys; from omniqa.cli import app; from omniqa.cli.console import console; from omniqa import terminal\n"
        f"console.show_tracebacks({debug})\n"
        "app.run = lambda arguments: [].index('\\x1b[2J')\n"
        "app.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, "\x1b" in done.stderr) == (1, "", False)
    assert "a fault in omniqa: ValueError: " in done.stderr.splitlines()[-1]
    assert ("Traceback" in done.stderr) == debug
    assert debug or len(done.stderr.splitlines()) == 1
