"""docs/cli.md is what the app says, and the shells complete what it knows."""

import os
import re
import subprocess
import sys

import pytest
from typer.main import get_command

from omniqa.cli.app import app
from omniqa.cli.reference import reference
from tests.conftest import ROOT


def test_the_reference_is_up_to_date():
    text = (ROOT / "docs" / "cli.md").read_text()
    assert text == reference(), "run: make docs"


def test_every_command_and_option_is_in_it():
    text = reference()
    for name, command in get_command(app).commands.items():
        section = text.split(f"\n## omniqa {name}\n")[1].split("\n## omniqa ")[0]
        inner = getattr(command, "commands", {})
        assert all(f"\n## omniqa {name} {word}\n" in text for word in inner)
        for param in command.params:
            for word in param.opts if param.param_type_name == "option" else ():
                assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", section), (name, word)
            if getattr(param, "envvar", None):
                assert f"`{param.envvar}`" in section


def complete(*words, shell="bash"):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_OMNIQA_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": " ".join(words),
    }
    done = subprocess.run([sys.executable, "-m", "omniqa"], env=environment, capture_output=True, text=True)
    return done.stdout


def test_commands_and_options_are_completed():
    assert complete("omniqa", "ba").split() == ["batch"]
    assert "--retry-failed" in complete("omniqa", "batch", "--re")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_and_installed(shell, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    for option in ("--show-completion", "--install-completion"):
        command = [sys.executable, "-m", "omniqa", option, shell]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert shell in done.stdout or "_OMNIQA_COMPLETE" in done.stdout
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("omniqa" in text for text in written)
