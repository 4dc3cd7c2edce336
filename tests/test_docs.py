"""Every code block of README.md, CONTRIBUTING.md and docs/ runs as it stands, unless it is marked otherwise."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest

from omniqa.cli.app import run
from omniqa.nano import clips, world
from omniqa.pipeline import load as loading
from tests.conftest import ROOT
from tests.media.clips import Audio, tone, write_clip

PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
CODE, SHOWN = {"bash", "python"}, {"console", "text", "json", "yaml"}
MARKS = {"network", "gpu", "slow"}  # slow also stands for what needs other machines, or files that are not here
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^#[^\n]*\n|\n\n)    \S", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    marks: frozenset[str]
    text: str


def blocks(page):
    content = (ROOT / page).read_text(encoding="utf-8")
    for match in FENCE.finditer(content):
        language, *marks = match[1].split() or [""]
        yield Block(page, content[: match.start()].count("\n") + 1, language, frozenset(marks), match[2])


BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = [block for block in BLOCKS if block.language in CODE and not block.marks]


def test_every_block_is_code_that_runs_or_is_marked_or_is_only_shown(capsys):
    for block in BLOCKS:
        assert block.language in CODE | SHOWN, f"{block.page}:{block.line}"
        assert block.marks <= (MARKS if block.language in CODE else set()), f"{block.page}:{block.line}"
    marked = [block for block in BLOCKS if block.language in CODE and block.marks]
    counts = ", ".join(f"{sum(mark in block.marks for block in marked)} {mark}" for mark in sorted(MARKS))
    with capsys.disabled():
        print(f"\ncode blocks: {len(RUN)} run, {len(marked)} marked ({counts})")
    assert RUN


@pytest.mark.parametrize("page", PAGES)
def test_code_is_in_fences(page):
    assert not INDENTED.search(FENCE.sub("", (ROOT / page).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """The files that blocks name, made once: two short clips with questions, a sound, two parts of a batch."""
    folder = tmp_path_factory.mktemp("material")
    for _ in clips.make_clips(folder / "clips", world.test_scripts(2, 4, 1), 112):
        pass
    shutil.copy(folder / "clips" / clips.QUESTIONS, folder / "questions.jsonl")
    (folder / "questions.csv").write_text("video,question\nclips/clip-00000.mp4,What is heard?\n")
    for name in ("talk.mp4", "clip.mp4"):
        shutil.copy(folder / "clips" / "clip-00001.mp4", folder / name)
    write_clip(folder / "song.mp3", audio=Audio(tone(2.0), codec="libmp3lame"))
    return folder


@pytest.fixture
def workplace(material, tmp_path, monkeypatch):
    """A folder with what blocks name, in which `omniqa` and `python` are this tree's, and nano is the default model."""
    for path in material.iterdir():
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / path.name)
    for name in ("sample_media", "docs", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".cache" / "clips").mkdir(parents=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, command in (("omniqa", f'"{sys.executable}" -m omniqa'), ("python", f'"{sys.executable}"')):
        (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    short = {"OMNIQA_MODEL": "nano", "OMNIQA_MAX_NEW_TOKENS": "4"}  # what is answered is tested elsewhere
    for name, value in {**environment, **short, "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    load, loaded = loading.load_model, {}  # nano is loaded once a page

    def once(checkpoint, device, dtype, **named):
        key = checkpoint.name, dtype, *named.items()
        if key not in loaded:
            loaded[key] = load(checkpoint, device, dtype, **named)
        return loaded[key]

    monkeypatch.setattr(loading, "load_model", once)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.page == page for block in RUN)])
def test_the_blocks_of_a_page_run_one_after_the_other(page, workplace, capfd):
    names = {"__name__": "block"}  # a page's Python goes on from block to block
    for block in RUN:
        if block.page == page:
            failure = _python(block, names) if block.language == "python" else _shell(block)
            assert not failure, f"{page}:{block.line}: {failure}\n{capfd.readouterr().err}"


def _python(block, names):
    exec(compile(block.text, f"{block.page}:{block.line}", "exec"), names)


def _shell(block):
    """What went wrong, if anything; plain commands of omniqa run in this process, where nano is loaded already."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "omniqa" and not set("|<>$*~") & set(re.sub(r'"[^"]*"', "", line)):
            code = run(words[1:])
        else:
            done = subprocess.run(["bash", "-eo", "pipefail", "-c", line], stdin=subprocess.DEVNULL)
            code = done.returncode
        if code:
            return f"{line!r} ended with {code}"
    return None
