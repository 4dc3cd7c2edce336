"""Clips are found however their folder is laid out, and nano's are what files of them hold."""

from dataclasses import replace

import numpy as np
import pytest

from omniqa.errors import MediaError, UsageError
from omniqa.eval.nano import NanoClips
from omniqa.jobs.clips import MediaFolder
from omniqa.media.clip import sample
from omniqa.media.sampling import ClipOptions
from omniqa.nano import world
from omniqa.nano.clips import write_clip

BOUNDS = (112**2, 168**2)


@pytest.fixture
def folder(tmp_path):
    for name in ("videos/a.mp4", "b.mkv", "subtitle/b.srt", "deep/er/c_video.mp4", "c_audio.wav", "v1.2.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("clip", "file"),
    [
        ("videos/a.mp4", "videos/a.mp4"),
        ("a.mp4", "videos/a.mp4"),
        ("data/a.mp4", "videos/a.mp4"),
        ("a", "videos/a.mp4"),
        ("b.mp4", "b.mkv"),
        ("b", "b.mkv"),
        ("c/c_video.mp4", "deep/er/c_video.mp4"),
        ("v1.2", "v1.2.mp4"),
    ],
)
def test_a_clip_is_found_by_path_then_by_name_then_by_stem(folder, clip, file):
    assert MediaFolder(folder, ClipOptions()).find(clip) == folder / file


def test_a_clip_that_is_missing_or_there_twice_is_an_error(folder):
    with pytest.raises(MediaError, match=r"d\.mp4 is not in"):
        MediaFolder(folder, ClipOptions()).find("d.mp4")
    (folder / "more").mkdir()
    (folder / "more" / "a.mp4").touch()
    with pytest.raises(MediaError, match="more than once"):
        MediaFolder(folder, ClipOptions()).find("a.mp4")
    assert MediaFolder(folder, ClipOptions()).find("videos/a.mp4")


def test_a_folder_without_any_of_the_clips_is_refused(folder):
    MediaFolder(folder, ClipOptions()).check(["x.mp4", "a.mp4"])
    with pytest.raises(MediaError, match="None of the 2 clips"):
        MediaFolder(folder, ClipOptions()).check(["x.mp4", "y.mp4"])


def test_addresses_are_no_files_and_count_where_they_are_allowed(folder):
    address = "https://nowhere.example/x.mp4"
    MediaFolder(folder, ClipOptions(allow_network=True)).check([address])
    with pytest.raises(MediaError, match="allow_network=True"):
        MediaFolder(folder, ClipOptions()).check([address])


@pytest.mark.parametrize("seconds", [4, 4.5])
def test_a_drawn_clip_is_what_a_file_of_it_gives(tmp_path, seconds):
    clips = NanoClips(seconds, 2, 112)
    drawn = clips.source("3", BOUNDS)
    path = write_clip(tmp_path / "clip.mp4", world.draw(3, seconds, 2), 112)
    read = sample(path, ClipOptions().within(BOUNDS))
    assert drawn.frames.shape == read.frames.shape
    assert drawn.frame_times == read.frame_times
    assert np.abs(drawn.frames.astype(int) - read.frames).mean() < 8
    assert np.corrcoef(drawn.waveform, read.waveform[: len(drawn.waveform)])[0, 1] > 0.98


def test_a_drawn_clip_gets_the_models_size_and_the_asked_sampling():
    assert NanoClips(4, 1, 168).source("0", (128 * 784, 768 * 784)).frames.shape[1:3] == (336, 336)
    sparse = NanoClips(4, 1, 112, ClipOptions(max_frames=4)).source("0", BOUNDS)
    assert [float(time) for time in sparse.frame_times] == [0, 1, 2, 3]
    assert len(NanoClips(4, 1, 112, ClipOptions(audio=False)).source("0", BOUNDS).waveform) == 0
    assert len(NanoClips(4, 1, 112, ClipOptions(video=False)).source("0", BOUNDS).frames) == 0


def test_blind_to_video_shows_another_clip_of_the_set():
    clips = NanoClips(4, 2, 112)
    blind = replace(clips, blind="video")
    for one, other in (("0", "1"), ("1", "0"), ("6", "7")):
        np.testing.assert_array_equal(blind.source(one, BOUNDS).frames, clips.source(other, BOUNDS).frames)
        np.testing.assert_array_equal(blind.source(one, BOUNDS).waveform, clips.source(one, BOUNDS).waveform)
    assert blind.questions(2) == clips.questions(2)


def test_blind_to_audio_hears_the_room_alone():
    clips = NanoClips(4, 2, 112)
    for seed in range(4):
        loud, soft = clips.source(str(seed), BOUNDS), replace(clips, blind="audio").source(str(seed), BOUNDS)
        np.testing.assert_array_equal(loud.frames, soft.frames)
        assert np.abs(soft.waveform).max() < 0.02
        assert len(soft.waveform) == len(loud.waveform)


def test_nanos_questions_are_the_fixed_test_set_with_chance_levels():
    questions = NanoClips().questions(3)
    expected = [question for script in world.test_scripts(3) for question in world.questions(script)]
    assert [question.prompt() for question in questions] == [question.prompt for question in expected]
    assert [question.number for question in questions] == list(range(len(questions)))
    assert questions[: len(NanoClips().questions(2))] == NanoClips().questions(2), "more clips only add questions"
    for question, original in zip(questions, expected, strict=True):
        moments = "one" if len(original.evidence) == 1 else "several"
        assert question.groups == {
            "task": original.task,
            "kind": original.kind,
            "modality": original.modality,
            "moments": moments,
        }
        assert question.chance == world.chance(original.kind, original.options is not None)


@pytest.mark.parametrize("wrong", [{"size": 8}, {"scenes": 9}, {"seconds": 0}, {"blind": "both"}])
def test_what_can_not_be_drawn_is_refused(wrong):
    with pytest.raises(UsageError):
        NanoClips(**wrong)
