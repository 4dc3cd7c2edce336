"""What a programmer sees of the package: names, short reprs, and an answer in a notebook."""

import dataclasses
from importlib.resources import files

import numpy as np
import pytest

import omniqa
from omniqa.errors import UsageError
from tests.media.clips import Audio, Video, grey, tone, write_clip


@pytest.fixture(scope="module")
def encoded(qa, tmp_path_factory):
    path = tmp_path_factory.mktemp("python") / "c.mp4"
    write_clip(path, Video([grey(i % 8, 112, 112) for i in range(20)], 10), Audio(tone(2.0)))
    return qa.encode(path)


@pytest.fixture(scope="module")
def answer(qa, encoded):
    return qa.ask(encoded, "What is seen?", decoding=omniqa.GenerationOptions(max_new_tokens=2))


def test_the_public_names_are_listed_and_there():
    public = {
        "Answer", "Clip", "ClipOptions", "EncodedClip", "GenerationOptions", "OmniQA", "Trace", "UsageError", "load",
        "sample", "__version__",
    }  # fmt: skip
    assert public <= set(dir(omniqa))
    assert all(hasattr(omniqa, name) for name in dir(omniqa))
    everything = {}
    exec("from omniqa import *", everything)
    assert public - {"__version__"} <= set(everything)


@pytest.mark.parametrize(
    ("old", "new"),
    [("Sampling", "ClipOptions"), ("Decoding", "GenerationOptions"), ("EncodedVideo", "EncodedClip"),
     ("SampledClip", "Clip")],
)  # fmt: skip
def test_an_old_name_still_serves_and_says_what_it_is_called_now(old, new):
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(omniqa, old) is getattr(omniqa, new)
    assert old not in dir(omniqa)


def test_a_file_is_sampled_without_a_model(tmp_path):
    write_clip(tmp_path / "c.mp4", Video([grey(i % 8, 112, 112) for i in range(20)], 10), Audio(tone(2.0)))
    clip = omniqa.sample(tmp_path / "c.mp4", omniqa.ClipOptions(fps=2))
    assert (len(clip.frames), len(clip.frame_times), clip.warnings) == (4, 4, ())
    assert clip.waveform.shape == (32_000,)
    assert clip.info.path == str(tmp_path / "c.mp4")


def test_a_prefill_ends_before_the_first_token(qa, encoded, answer):
    prefilled = qa.prefill(encoded, "What is seen?")
    assert int(prefilled.logits.argmax()) == answer.token_ids[0]
    assert prefilled.positions.shape == (3, len(prefilled.ids))
    assert np.array_equal(prefilled.trace.alive, answer.trace.alive)
    tokens = answer.stats.tokens
    assert len(prefilled.ids) == tokens.text + tokens.audio + tokens.video
    with pytest.raises(UsageError, match="encoded already"):
        qa.prefill(encoded, "What is seen?", sampling=omniqa.ClipOptions())


def test_an_answer_may_go_on_past_its_end(qa, encoded):
    options = omniqa.GenerationOptions(max_new_tokens=4, stop_at_end=False)
    answer = qa.ask(encoded, "What is seen?", decoding=options)
    assert len(answer.token_ids) == 4
    assert answer.stats.seconds_per_token > 0


def test_types_are_marked_as_there():
    assert files("omniqa").joinpath("py.typed").is_file()


def test_reprs_are_short_and_say_what_it_is(qa, encoded, answer):
    long = dataclasses.replace(answer, text="x" * 500, question="y" * 500)
    for thing in (qa, encoded, answer, long, answer.trace):
        assert len(repr(thing)) < 250
        assert type(thing).__name__ in repr(thing)
    assert "cpu" in repr(qa)
    assert "What is seen?" in repr(answer)


def test_a_trace_is_saved_by_name(answer, tmp_path):
    answer.trace.save(str(tmp_path / "t.npz"))
    assert np.load(tmp_path / "t.npz")["alive"].shape == answer.trace.alive.shape


@pytest.mark.parametrize("video", [["a.mp4"], ("a.mp4", "b.mp4"), None, 3])
def test_what_is_no_video_is_refused(qa, video):
    for call in (qa.encode, qa.prepare, lambda given: qa.ask(given, "What?")):
        with pytest.raises(UsageError, match="A video is a path"):
            call(video)


def test_an_answer_in_a_notebook_is_escaped(answer):
    bad = "<script>alert(1)</script>&\x1b[2J\u202e"
    shown = dataclasses.replace(answer, text=bad, question=bad, video=bad, model=bad, method=bad)._repr_html_()
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 5
    assert not {"\x1b", "\u202e"} & set(shown)
    assert answer.question in answer._repr_html_()
