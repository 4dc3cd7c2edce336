"""Ways to run the command line as a user does."""

import json
import subprocess
import sys

import pytest

from omniqa.cli.app import run
from tests.media.clips import Audio, Video, grey, tone, write_clip


@pytest.fixture
def omniqa(capfd):
    """Run the command line in this process; gives exit code, stdout and stderr."""

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def ask(omniqa, checkpoint):
    """`omniqa ask` with the small checkpoint and a short answer."""

    def call(*arguments):
        return omniqa("ask", "--model", checkpoint, "--max-new-tokens", 6, "--min-pixels", 784, *arguments)

    return call


@pytest.fixture
def ask_json(ask):
    """The objects that `omniqa ask --json` prints."""

    def call(*arguments):
        code, out, err = ask(*arguments, "--json")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    return call


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Five seconds of picture and sound."""
    path = tmp_path_factory.mktemp("clips") / "five seconds.mp4"
    return write_clip(path, Video([grey(i % 8, 112, 168) for i in range(50)], 10), Audio(tone(5.0)))


@pytest.fixture
def shell(checkpoint):
    """Run a shell line with `omniqa` and $MODEL in it, in processes of its own."""

    def call(line, **options):
        return subprocess.run(
            ["bash", "-c", f'omniqa() {{ "{sys.executable}" -m omniqa "$@"; }}; MODEL="{checkpoint}"; {line}'],
            capture_output=True,
            **options,
        )

    return call
