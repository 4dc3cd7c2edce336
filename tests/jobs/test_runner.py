"""Every question about every clip gets one line, whatever happens in between."""

import gc
import json
import random
import weakref

import av
import pytest
import torch

from omniqa.errors import ModelError, NotFiniteError, OutOfMemoryError, UsageError
from omniqa.jobs import runfile
from omniqa.media.sampling import ClipOptions
from omniqa.pipeline.encoded_clip import PreprocessedClip
from omniqa.pipeline.engine import OmniQA
from omniqa.runtime.generation_options import GenerationOptions
from tests.jobs.conftest import QUESTIONS, SAMPLING
from tests.media.faults import Faults
from tests.near import near

TIMES = {"timing_s": None, "memory": None}
TRIED = "No room. Tried with 8 and 4 frames."


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(path):
    return [row | TIMES for row in lines(path)]


@pytest.fixture
def undisturbed(start, qa, tmp_path):
    """The lines of a run that nothing happened to."""
    list(start(path=tmp_path / "undisturbed.jsonl").go_on(qa))
    return near(timeless(tmp_path / "undisturbed.jsonl"))


@pytest.fixture
def memory(monkeypatch):
    """Let memory run out wherever there are more frames than allowed."""

    def call(stage, most):
        real = getattr(OmniQA, stage)

        def limited(self, video, *given, **rest):
            frames = video.clip.frames if isinstance(video, PreprocessedClip) else range(video.summary.frames)
            if len(frames) > most:
                raise OutOfMemoryError("No room.")
            return real(self, video, *given, **rest)

        monkeypatch.setattr(OmniQA, stage, limited)

    return call


def test_lines_are_what_ask_prints_and_more(start, qa, media, tmp_path):
    rows = list(start().go_on(qa))
    assert rows == lines(tmp_path / "out.jsonl")
    assert [(row["video"], row["question"]) for row in rows] == [
        (str(media / name), question) for name in ("a.mp4", "b.mkv", "sub/deep/c") for question in QUESTIONS
    ]
    job = start()
    for row in rows:
        answer = next(
            qa.ask_all(
                row["video"], [row["question"]], job.columns[0].pruner, sampling=SAMPLING, decoding=GenerationOptions(3)
            )
        )
        expected = answer.to_dict() | TIMES
        assert {name: row[name] for name in expected} | TIMES == near(expected)
        assert set(row) - set(expected) == {"id", "status", "error", "file", "fields", "settings"}
        assert (row["status"], row["error"]) == ("ok", None)
        assert set(row["timing_s"]) == set(answer.stats.timing_s)


def test_each_clip_is_decoded_and_encoded_once_and_its_first_answer_tells_how_long_that_took(start, qa, monkeypatch):
    encoded = []
    encode = OmniQA.encode
    monkeypatch.setattr(
        OmniQA, "encode", lambda self, clip, **named: encoded.append(clip.name) or encode(self, clip, **named)
    )
    rows = list(start().go_on(qa))
    assert encoded == list(dict.fromkeys(row["video"] for row in rows))
    assert all((row["timing_s"]["decode"] > 0) == (row["question"] == QUESTIONS[0]) for row in rows)
    first = rows[0]["timing_s"]
    assert first["total"] > first["time_to_first_token"] > first["decode"] + first["vision_encoder"]


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_no_more_clips_are_held_than_are_decoded_ahead(start, qa, undisturbed, tmp_path, monkeypatch, prefetch):
    alive = weakref.WeakSet()
    prepare = OmniQA.prepare

    def watched(self, *given, **rest):
        prepared = prepare(self, *given, **rest)
        alive.add(prepared)
        return prepared

    monkeypatch.setattr(OmniQA, "prepare", watched)
    held = []
    for _ in start(prefetch=prefetch).go_on(qa):
        gc.collect()
        held.append(len(alive))
    assert max(held) <= prefetch, "the clip that is asked about has let go of its pictures"
    assert timeless(tmp_path / "out.jsonl") == undisturbed


def test_a_second_run_does_what_is_missing_and_nothing_twice(start, qa, media, tmp_path):
    first = list(start([str(media / "a.mp4")]).go_on(qa))
    assert len(list(start().go_on(qa))) == 4
    assert list(start().go_on(qa)) == []
    assert len(list(start(questions=[*QUESTIONS, "Where?"]).go_on(qa))) == 3
    ids = [row["id"] for row in lines(tmp_path / "out.jsonl")]
    assert ids[:2] == [row["id"] for row in first]
    assert len(ids) == len(set(ids)) == 9


@pytest.mark.parametrize("seed", range(6))
def test_wherever_the_file_was_cut_off_the_next_run_gives_the_undisturbed_result(
    start, qa, undisturbed, tmp_path, seed
):
    path = tmp_path / "out.jsonl"
    list(start().go_on(qa))
    data = path.read_bytes()
    cut = random.Random(seed).randrange(len(data))
    path.write_bytes(data[:cut])
    again = list(start().go_on(qa))
    assert len(again) == 6 - data[:cut].count(b"\n")
    assert timeless(path) == undisturbed


def test_files_that_are_no_media_are_left_out_and_need_no_model(start, qa, media):
    batch = start()
    assert batch.anything_left()
    list(batch.go_on(qa))
    assert list(batch.runner.left_out) == [str(media / "notes")]
    assert not start().anything_left()


def test_a_broken_clip_fails_by_itself_and_is_tried_again_when_asked_to(start, qa, media, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes((media / "a.mp4").read_bytes()[:800])
    names = [str(broken), str(tmp_path / "gone.mp4"), str(media / "a.mp4")]
    rows = list(start(names).go_on(qa))
    assert [row["status"] for row in rows] == ["failed"] * 4 + ["ok"] * 2
    assert "broken.mp4 is not a media file" in rows[0]["error"]
    assert "gone.mp4 was not found" in rows[2]["error"]
    assert rows[0]["answer"] is None
    assert set(rows[0]) == set(rows[-1])

    assert list(start(names).go_on(qa)) == [], "a failure is a result, too"
    broken.write_bytes((media / "a.mp4").read_bytes())
    again = list(start(names, retry=True).go_on(qa))
    assert [row["status"] for row in again] == ["ok"] * 2 + ["failed"] * 2
    ids = [row["id"] for row in lines(tmp_path / "out.jsonl")]
    assert len(ids) == len(set(ids)) == 6, "no question has two lines"


def test_whatever_trips_up_the_decoder_is_that_clips_failure_alone(start, qa, monkeypatch):
    prepare = OmniQA.prepare

    def strange(self, path, *given, **rest):
        if isinstance(path, str) and not path.endswith("c"):
            raise ValueError("no such plane")
        return prepare(self, path, *given, **rest)

    monkeypatch.setattr(OmniQA, "prepare", strange)
    rows = list(start().go_on(qa))
    assert [row["status"] for row in rows] == ["failed"] * 4 + ["ok"] * 2
    assert "ValueError: no such plane" in rows[0]["error"]


def test_a_question_that_fails_does_not_take_the_others_with_it(start, qa, monkeypatch):
    ask_all = OmniQA.ask_all

    def refusing(self, video, questions, *given, **rest):
        if questions == [QUESTIONS[0]]:
            raise UsageError("can't serve this clip")
        return ask_all(self, video, questions, *given, **rest)

    monkeypatch.setattr(OmniQA, "ask_all", refusing)
    rows = list(start().go_on(qa))
    assert [row["status"] for row in rows] == ["failed", "ok"] * 3
    assert rows[1]["timing_s"]["decode"] > 0, "the first answer tells what encoding took, also where it is the second"


def test_a_model_that_fails_again_and_again_ends_the_run(start, qa, tmp_path, monkeypatch):
    def lost(*_, **__):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(OmniQA, "encode", lost)
    with pytest.raises(RuntimeError):
        list(start().go_on(qa))
    rows = lines(tmp_path / "out.jsonl")
    assert len(rows) == 6
    assert "the device is gone" in rows[0]["error"]


@pytest.fixture
def broken_weights(qa):
    """The model with NaN in one of its decoder's layers; whole again afterwards."""
    weight = qa.model.decoder.layers[1].mlp.up_proj.weight
    whole = weight.data
    weight.data = torch.full_like(whole, float("nan"))
    yield qa
    weight.data = whole


def test_a_model_whose_scores_are_no_numbers_ends_the_run_at_the_third_clip(start, broken_weights, tmp_path):
    with pytest.raises(NotFiniteError, match="NaN or infinity"):
        list(start(questions=QUESTIONS[:1]).go_on(broken_weights))
    rows = lines(tmp_path / "out.jsonl")
    assert [row["status"] for row in rows] == ["failed"] * 3
    assert all("NaN or infinity" in row["error"] for row in rows)


def test_a_clip_that_the_model_copes_with_in_between_lets_the_run_go_on(start, qa, media, monkeypatch):
    ask_all = OmniQA.ask_all

    def partly(self, video, *given, **rest):
        if video.name.endswith("b.mkv"):
            return ask_all(self, video, *given, **rest)
        raise NotFiniteError("no numbers")

    monkeypatch.setattr(OmniQA, "ask_all", partly)
    rows = list(start().go_on(qa))
    assert sorted(row["status"] for row in rows) == ["failed"] * 4 + ["ok"] * 2


def test_what_no_clip_is_to_blame_for_ends_the_run(start, qa, tmp_path, monkeypatch):
    def missing(*_, **__):
        raise ModelError("The method's own network is missing.")

    monkeypatch.setattr(OmniQA, "ask_all", missing)
    with pytest.raises(ModelError):
        list(start().go_on(qa))
    assert lines(tmp_path / "out.jsonl") == []


@pytest.mark.parametrize("stage", ["encode", "ask_all"])
@pytest.mark.parametrize(("sampling", "error"), [(ClipOptions(fps=4), TRIED), (ClipOptions(fps=1), "No room.")])
def test_where_memory_runs_out_twice_the_clip_fails(start, qa, memory, stage, sampling, error):
    memory(stage, 1)
    rows = list(start(sampling=sampling).go_on(qa))
    assert {(row["status"], row["error"]) for row in rows} == {("failed", error)}


@pytest.mark.parametrize("stage", ["encode", "ask_all"])
def test_where_memory_runs_out_the_clip_is_asked_about_with_fewer_frames_and_marked(start, qa, memory, stage):
    memory(stage, 4)
    rows = list(start(sampling=ClipOptions(fps=4)).go_on(qa))
    assert {row["status"] for row in rows} == {"fewer_frames"}
    assert {row["media"]["frames"] for row in rows} == {4}
    assert "Memory ran out with 8 frames; answered from 4." in rows[0]["media"]["warnings"]
    assert all(row["answer"] is not None for row in rows)


@pytest.mark.parametrize("prefetch", [0, 1])
@pytest.mark.parametrize(
    "error", [av.error.MemoryError(12, "Cannot allocate memory"), MemoryError("Unable to allocate")]
)
def test_where_memory_runs_out_while_decoding_the_clip_is_decoded_again_with_half_the_frames(
    start, qa, media, monkeypatch, error, prefetch
):
    room = Faults(error, at=25)
    room.put_in(monkeypatch)
    rows = list(start([str(media / "a.mp4")], sampling=ClipOptions(fps=4), prefetch=prefetch).go_on(qa))
    assert room.struck
    assert [row["status"] for row in rows] == ["fewer_frames"] * 2
    assert {row["media"]["frames"] for row in rows} == {4}
    assert "Memory ran out with 8 frames; answered from 4." in rows[0]["media"]["warnings"]
    assert not any("Damaged" in warning for row in rows for warning in row["media"]["warnings"])


def test_where_memory_stays_out_while_decoding_the_clip_fails_alone(start, qa, media, monkeypatch):
    room = Faults(av.error.MemoryError(12, "Cannot allocate memory"), at=25, lasts=True)
    with monkeypatch.context() as patch:
        room.put_in(patch)
        rows = list(start([str(media / "a.mp4")], sampling=ClipOptions(fps=4)).go_on(qa))
    assert {row["status"] for row in rows} == {"failed"}
    # How many frames there were can't be told either, so that the most that may be taken are halved.
    assert all(row["error"].endswith("Tried with 128 and 64 frames.") for row in rows)
    assert {row["status"] for row in start([str(media / "b.mkv")], sampling=ClipOptions(fps=4)).go_on(qa)} == {"ok"}


def test_memory_that_runs_out_at_a_later_question_costs_none_of_the_earlier_answers(start, qa, monkeypatch):
    ask_all = OmniQA.ask_all

    def limited(self, video, questions, *given, **rest):
        if questions == [QUESTIONS[1]] and video.summary.frames > 4:
            raise OutOfMemoryError("No room.")
        return ask_all(self, video, questions, *given, **rest)

    monkeypatch.setattr(OmniQA, "ask_all", limited)
    rows = list(start(sampling=ClipOptions(fps=4)).go_on(qa))
    assert [row["status"] for row in rows] == ["ok", "fewer_frames"] * 3
    assert [row["media"]["frames"] for row in rows] == [8, 4] * 3


def test_an_interrupt_drops_the_question_and_keeps_the_file_whole(start, qa, undisturbed, tmp_path, monkeypatch):
    ask_all = OmniQA.ask_all
    left = [3]

    def interrupted(self, *given, **rest):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return ask_all(self, *given, **rest)

    monkeypatch.setattr(OmniQA, "ask_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(start().go_on(qa))
    assert timeless(tmp_path / "out.jsonl") == undisturbed[:3]
    left[0] = 100
    list(start().go_on(qa))
    assert timeless(tmp_path / "out.jsonl") == undisturbed


def test_other_settings_are_refused_unless_added(start, qa, tmp_path):
    first = list(start().go_on(qa))
    with pytest.raises(UsageError, match=r"max_new_tokens was 3, not 4.*append=True"):
        start(tokens=4)
    assert len(list(start(tokens=4, append=True).go_on(qa))) == 6
    assert list(start(tokens=4).go_on(qa)) == [], "they are no others any more"
    assert list(start().go_on(qa)) == []
    rows = lines(tmp_path / "out.jsonl")
    assert rows[:6] == first
    assert len({row["id"] for row in rows}) == 6
    assert len({(row["id"], row["settings"]) for row in rows}) == 12


def test_lines_of_another_model_are_refused_where_the_settings_name_none(start, qa, monkeypatch):
    list(start().go_on(qa))
    monkeypatch.setattr(qa, "name", "another")
    with pytest.raises(UsageError, match=r"of the model .*, not of another"):
        list(start().go_on(qa))


def test_results_without_their_run_file_and_other_files_are_left_alone(start, qa, tmp_path):
    path = tmp_path / "out.jsonl"
    list(start().go_on(qa))
    runfile.path_of(path).unlink()
    with pytest.raises(UsageError, match=r"without out\.jsonl\.run\.json"):
        start()
    for text in ('{"a": 1}\n', "no newline", "one\ntwo\n"):
        path.write_text(text)
        with pytest.raises(UsageError):
            start()
        assert path.read_text() == text


def test_a_run_file_left_behind_counts_for_nothing(start, qa, tmp_path):
    list(start().go_on(qa))
    (tmp_path / "out.jsonl").unlink()
    assert len(list(start(tokens=4).go_on(qa))) == 6


def test_weights_of_another_training_are_other_settings(tmp_path):
    def settings(weights):
        (tmp_path / "model.safetensors").write_bytes(weights)
        return runfile.make_settings(str(tmp_path), "auto", ClipOptions(), GenerationOptions(), {})

    first = settings(b"one")
    assert settings(b"one") == first
    assert settings(b"two")["weights"] != first["weights"]
    assert json.loads(json.dumps(first)) == first
