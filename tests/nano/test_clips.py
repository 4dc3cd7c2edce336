"""Clips as files: what is read back from them is what the script says."""

import json
from pathlib import Path

import numpy as np
import pytest

from omniqa.media.clip import sample
from omniqa.media.sampling import ClipOptions
from omniqa.nano.clips import write_clip
from omniqa.nano.questions import questions
from omniqa.nano.scenes import draw
from omniqa.nano.sound import RATE, waveform
from tests.nano.seeing import background_of, colour_at


@pytest.fixture(scope="module", params=[1, 2])
def written(request, tmp_path_factory):
    """A script, and its clip as `omniqa ask` takes it from the file."""
    script = draw(request.param, 8, 4)
    path = write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", script)
    return script, sample(path, ClipOptions(min_pixels=784))


def test_a_file_holds_the_whole_clip(written):
    script, clip = written
    assert float(clip.seconds) == pytest.approx(script.seconds, abs=0.1)
    assert [float(time) for time in clip.frame_times] == [k / 2 for k in range(16)]
    assert clip.frames.shape[1:] == (168, 168, 3)
    assert not clip.warnings


def test_a_files_index_is_in_front_so_that_it_plays_while_it_is_loaded(written):
    _, clip = written
    content = Path(clip.info.path).read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_colours_survive_coding_at_their_times(written):
    script, clip = written
    for time, picture in zip(clip.frame_times, clip.frames, strict=True):
        scene = next(scene for scene in script.scenes if scene.start <= time < scene.end)
        assert background_of(picture) == scene.background
        colours = [colour_at(picture, thing, float(time) - scene.start) for thing in scene.things]
        assert colours == [thing.colour for thing in scene.things]


def test_sounds_survive_coding_at_their_times(written):
    script, clip = written
    made, read = (envelope(samples) for samples in (waveform(script), clip.waveform))
    assert np.corrcoef(made, read[: len(made)])[0, 1] > 0.98


def envelope(samples):
    """Loudness of every 20 ms."""
    step = RATE // 50
    return np.sqrt(np.mean(samples[: len(samples) // step * step].reshape(-1, step) ** 2, axis=1))[:395]


def test_make_clips_writes_clips_and_questions(omniqa, tmp_path):
    folder = tmp_path / "new" / "clips"
    code, out, err = omniqa("nano", "make-clips", folder, "--n", 2, "--seed", 7, "--seconds", 4, "--size", 112)
    assert code == 0, err
    assert out.strip() == str(folder / "questions.jsonl")
    assert sorted(path.name for path in folder.glob("*.mp4")) == ["clip-00000.mp4", "clip-00001.mp4"]
    lines = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    expected = [(f"clip-0000{k}.mp4", question) for k in range(2) for question in questions(draw(7 + k, 4, 2))]
    assert [(line["video"], line["question"], line["answer"]) for line in lines] == [
        (video, question.text, question.answer) for video, question in expected
    ]
    for line, (_, question) in zip(lines, expected, strict=True):
        assert line.get("options") == (list(question.options) if question.options else None)
        assert (line["domain"], line["task"], line["kind"]) == ("nano", question.task, question.kind)
        assert line["modality"] == question.modality
        assert line["evidence"] == [list(span) for span in question.evidence]
    assert sample(folder / "clip-00000.mp4", ClipOptions(min_pixels=784)).frames.shape == (8, 112, 112, 3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--scenes", 9), "not 9 in 8 s"),
        (("--size", 99), "even number"),
        (("--size", 8), "from 56 to 1024"),
        (("--n", 0), "equal to 1"),
    ],
    ids=str,
)
def test_what_can_not_be_made_is_refused(omniqa, tmp_path, arguments, reason):
    code, out, err = omniqa("nano", "make-clips", tmp_path, *arguments)
    assert code == 2
    assert out == ""
    assert reason in err


def test_a_folder_that_can_not_be_written_to_is_a_usage_error(omniqa, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        code, _, err = omniqa("nano", "make-clips", folder, "--n", 1)
        assert code == 2
        assert "can't be written to" in err


def test_omniqa_can_be_asked_about_a_clip(omniqa, ask, tmp_path):
    omniqa("nano", "make-clips", tmp_path, "--n", 1, "--seconds", 4, "--size", 112)
    code, out, err = ask(tmp_path / "clip-00000.mp4", "What is heard?")
    assert code == 0, err
    assert out.strip()
