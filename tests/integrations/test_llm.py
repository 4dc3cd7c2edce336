"""omniqa in the `llm` tool: attachments, options, conversations, streaming; by a model of its own or by a server."""

import json
import tomllib

import pytest

import omniqa
from omniqa.models.base import Turn
from omniqa.runtime.generation_options import GenerationOptions
from tests.conftest import ROOT
from tests.media.clips import Audio, Video, grey, tone, write_clip
from tests.serve.conftest import NANO, SMALL, running, settings_for

llm = pytest.importorskip("llm", reason="needs the llm tool")
QUESTION, NEXT = "What happens?", "And then?"
FEW = GenerationOptions(max_new_tokens=6)


@pytest.fixture
def tool(checkpoint, tmp_path, monkeypatch):
    """Run the real `llm` with the plug-in and the small checkpoint; gives exit code and what was printed."""
    from click.testing import CliRunner
    from llm.cli import cli
    from llm.plugins import load_plugins, pm

    load_plugins()
    group, name = "llm", "omniqa"
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][group]
    if not pm.has_plugin(name):
        pm.register(__import__("importlib").import_module(entries[name]), name)
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.setenv("OMNIQA_MODEL", str(checkpoint))
    monkeypatch.delenv("OMNIQA_SERVER", raising=False)

    def call(*arguments, input=None):
        done = CliRunner().invoke(cli, [str(argument) for argument in arguments], input=input)
        return done.exit_code, done.output

    return call


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("llm") / "clip.mp4"
    return write_clip(path, Video([grey(i % 8, 112, 112) for i in range(20)], 10), Audio(tone(2.0)))


@pytest.fixture(params=["its own model", "a server"])
def answering(request, qa, monkeypatch, tool):
    """What answers, and the options with which it does as the library."""
    if request.param == "its own model":
        from llm.plugins import pm

        model = pm.get_plugin("omniqa").Omniqa
        monkeypatch.setattr(model, "_model", lambda self, name: qa)
        yield tool, ("-o", "max_tokens", 6), {}
        return
    with running(qa, settings_for()) as client:
        monkeypatch.setenv("OMNIQA_SERVER", client.base)
        yield tool, (), {"sampling": SMALL}
        assert client.server.media.store.files() == [], "uploads are taken back"


def test_a_question_and_the_next_are_answered_as_by_the_library(answering, qa, clip):
    tool, options, library = answering
    chat = qa.chat(clip, "omnidrop", 0.4 if library else None, decoding=FEW, **library)
    code, first = tool("-m", "omniqa", "-a", clip, QUESTION, *options)
    assert (code, first.strip()) == (0, chat.ask(QUESTION).text.strip())
    code, second = tool("-c", NEXT, *options)
    asked, then = json.loads(tool("logs", "--json", "-n", 2)[1])
    chat.turns[:] = [Turn(QUESTION, asked["response"])]
    expected = chat.ask(NEXT)
    counts = expected.stats.tokens
    assert then["input_tokens"] == counts.text + counts.audio + counts.video > asked["input_tokens"]
    assert (code, second.strip()) == (0, expected.text.strip())


def test_options_and_a_system_prompt_are_taken_and_what_was_done_is_logged(answering, qa, clip):
    tool, options, _ = answering
    chosen = ("-o", "method", "fastv", "-o", "retention", 0.5, "-o", "end", 1, "-s", "Say yes.")
    code, _ = tool("-m", "omniqa", "-a", clip, QUESTION, *options, *chosen)
    assert code == 0
    (log,) = json.loads(tool("logs", "--json", "-n", 1)[1])
    told = log["response_json"]["omniqa"]
    assert (told["method"], told["retention"]["target"]) == ("fastv", 0.5)
    assert told["media"]["duration_s"] == 1
    assert log["output_tokens"] == 6
    assert log["input_tokens"] == sum(told["tokens"][kind] for kind in ("text", "audio", "video"))


def test_nano_answers_streams_and_goes_on(tool, monkeypatch):
    from llm.plugins import pm

    nano, tiger = omniqa.load("nano", device="cpu"), ROOT / "sample_media" / "tiger.mp4"
    last, order = "What is heard last?", "What happens, in order?"
    with running(nano, settings_for(**NANO)) as client:
        monkeypatch.setenv("OMNIQA_SERVER", client.base)
        assert tool("-m", "omniqa", "-a", tiger, last) == (0, "noise\n")
        expected = nano.chat(tiger, "omnidrop", 0.4, turns=[Turn(last, "noise")]).ask(order).text
        assert tool("-c", order) == (0, f"{expected}\n")
    monkeypatch.delenv("OMNIQA_SERVER")
    model = pm.get_plugin("omniqa").Omniqa
    monkeypatch.setattr(model, "_model", lambda self, name: nano)
    pieces = list(model().prompt(order, attachments=[llm.Attachment(path=str(tiger))], stream=True))
    assert "".join(pieces).strip() == nano.ask(tiger, order).text
    assert len(pieces) > 3


def test_a_sound_comes_through_a_pipe(answering, tmp_path):
    tool, options, _ = answering
    path = write_clip(tmp_path / "s.mp3", audio=Audio(tone(2.0), codec="libmp3lame"))
    code, out = tool("-m", "omniqa", "--at", "-", "audio/mpeg", QUESTION, *options, input=open(path, "rb").read())  # noqa: SIM115
    assert code == 0, out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("What?",), "Attach one video"), (("-a", "CLIP", "-a", "OTHER", "What?"), "Attach one video"),
     (("-a", "NOTES", "What?"), "does not support attachments|mimetype"),
     (("-a", "CLIP", "What?", "-o", "method", "fastest"), "fastest"),
     (("-a", "CLIP", "What?", "-o", "start", 99), "only 2 s long")],
)  # fmt: skip
def test_an_error_is_one_line(answering, clip, tmp_path, arguments, said):
    import re
    import shutil

    tool, options, _ = answering
    (tmp_path / "notes.txt").write_text("no clip")
    shutil.copy(clip, tmp_path / "other.mp4")
    names = {"CLIP": clip, "OTHER": tmp_path / "other.mp4", "NOTES": tmp_path / "notes.txt"}
    code, out = tool("-m", "omniqa", *options, *(names.get(word, word) for word in arguments))
    assert (code, bool(re.search(said, out))) == (1, True), out
    assert "Traceback" not in out


def test_a_server_that_is_not_there_is_named(tool, clip, monkeypatch):
    monkeypatch.setenv("OMNIQA_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")
    code, out = tool("-m", "omniqa", "-a", clip, QUESTION)
    assert (code, "http://127.0.0.1:9, which OMNIQA_SERVER names" in out) == (1, True)


def test_types_of_media_are_taken_and_no_others():
    from omniqa.integrations.llm import MediaTypes

    types = MediaTypes({"video/*"})
    assert all(kind in types for kind in ("video/mp4", "video/x-matroska", "audio/mpeg", "audio/x-wav"))
    assert not any(kind in types for kind in ("image/png", "text/plain", None, "application/pdf"))
