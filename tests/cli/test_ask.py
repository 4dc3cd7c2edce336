"""What a user sees of `omniqa ask`."""

import json
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest

from omniqa.errors import MediaError
from omniqa.media.probe import probe
from omniqa.nano.wordings import is_trained
from tests.conftest import REAL_CLIPS, ROOT
from tests.media.clips import Audio, Video, grey, write_clip

SCHEMA = {
    "video": str,
    "question": str,
    "answer": str,
    "model": str,
    "method": str,
    "retention": {"target", "achieved", "audio", "video", "per_layer"},
    "tokens": {"text", "audio", "video", "audio_kept", "video_kept", "generated"},
    "timing_s": {
        "import",
        "load",
        "cache",
        "decode",
        "preprocess",
        "vision_encoder",
        "audio_encoder",
        "input_pruning",
        "prefill",
        "generate",
        "overlapped",
        "time_to_first_token",
        "total",
    },
    "memory": {"device", "peak_rss_bytes", "peak_device_bytes"},
    "media": {
        "duration_s",
        "frames",
        "fps",
        "width",
        "height",
        "audio_s",
        "warnings",
        "grids",
        "grids_reused",
        "tokens_reused",
        "jumps",
        "hdr",
        "pixel_aspect",
        "deinterlaced",
        "padded",
        "picture_width",
        "picture_height",
    },
    "evidence": list,
    "evidence_spans": list,
    "evidence_gain": {"audio", "video"},
}


def test_the_answer_and_nothing_else_is_on_stdout(ask, ask_json, clip):
    code, out, err = ask(clip, "What is seen?")
    assert code == 0
    assert out.strip() == ask_json(clip, "What is seen?")[0]["answer"]
    assert out.endswith("\n")
    for word in (" s · ", "kept 30 % of 245 tokens", "looked at ", " GB"):
        assert word in err


def test_json_has_the_documented_fields(ask_json, clip):
    (answer,) = ask_json(clip, "What is seen?")
    assert set(answer) == set(SCHEMA)
    for name, fields in SCHEMA.items():
        if isinstance(fields, set):
            assert set(answer[name]) == fields
        else:
            assert isinstance(answer[name], fields)
    assert answer["video"] == str(clip)
    assert answer["media"]["grids_reused"] <= 1  # the last grid shows what the first did, if the codec keeps it so
    assert answer["media"] | {"warnings": [], "grids_reused": 0} == {
        "duration_s": 5.0,
        "frames": 10,
        "fps": 2.0,
        "width": 168,
        "height": 112,
        "audio_s": 5.0,
        "warnings": [],
        "grids": 5,
        "grids_reused": 0,
        "tokens_reused": 0.0,
        "jumps": [],
        "hdr": None,
        "pixel_aspect": "1:1",
        "deinterlaced": 0,
        "padded": 0,
        "picture_width": 168,
        "picture_height": 112,
    }
    tokens, retention = answer["tokens"], answer["retention"]
    assert (tokens["video"], tokens["audio"]) == (5 * 4 * 6, 125)
    assert retention["achieved"] == pytest.approx(np.mean(retention["per_layer"]))
    assert abs(retention["achieved"] - 0.3) <= 1 / 245
    kept = (tokens["video_kept"] + tokens["audio_kept"]) / 245
    assert retention["per_layer"][0] == pytest.approx(kept)
    timing = answer["timing_s"]
    assert 0 < timing["time_to_first_token"] < timing["total"] - timing["load"]
    first = answer["evidence"][0]
    assert set(first) == {"start_s", "end_s", "score", "audio", "video", "region"}
    assert first["score"] == pytest.approx(first["audio"] + first["video"])
    assert answer["memory"]["peak_device_bytes"] is None


def test_quiet_leaves_stderr_empty(ask, clip):
    assert ask(clip, "What?", "-q")[2] == ""


def test_several_questions_encode_the_video_once(ask_json, clip):
    first, second, third = ask_json(clip, "What is seen?", "-Q", "What is heard?", "-Q", "Where?")
    assert [answer["question"] for answer in (first, second, third)] == ["What is seen?", "What is heard?", "Where?"]
    assert first["timing_s"]["vision_encoder"] > 0
    assert second["timing_s"]["vision_encoder"] == second["timing_s"]["decode"] == second["timing_s"]["load"] == 0
    (alone,) = ask_json(clip, "Where?")
    assert third["answer"] == alone["answer"]


def test_trace_holds_every_token_of_every_layer(ask_json, clip, tmp_path, qa):
    file = tmp_path / "trace.npz"
    (answer,) = ask_json(clip, "What?", "--trace", file)
    trace = np.load(file)
    assert set(trace) == {"modality", "chunk", "time_s", "alive", "score", "cached", "surplus"}
    assert trace["alive"].shape == trace["score"].shape == (qa.model.layers, 245)
    assert trace["score"].dtype == np.float32
    assert trace["alive"].mean(axis=1).tolist() == answer["retention"]["per_layer"]
    np.testing.assert_array_equal(trace["chunk"], trace["time_s"] // 2)
    assert not (~trace["alive"][:-1] & trace["alive"][1:]).any(), "what has left does not come back"
    assert np.array_equal(trace["cached"], trace["alive"]), "this method prunes no cache"


def test_several_questions_write_a_trace_each(ask, clip, tmp_path):
    assert ask(clip, "What?", "-Q", "Where?", "--trace", tmp_path / "t.npz")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t-1.npz", "t-2.npz"]


def test_one_modality_can_be_switched_off(ask_json, clip):
    assert ask_json(clip, "What?", "--no-audio")[0]["tokens"]["audio"] == 0
    (deaf,) = ask_json(clip, "What?", "--no-video")
    assert deaf["tokens"]["video"] == 0
    assert deaf["retention"]["video"] is None


def test_a_range_is_taken_and_reported_on_the_files_clock(ask_json, clip):
    (answer,) = ask_json(clip, "What?", "--start", 1, "--end", 4, "--fps", 4)
    assert answer["media"]["frames"] == 12
    assert {chunk["start_s"] for chunk in answer["evidence"]} == {1.0, 3.0}
    assert max(chunk["end_s"] for chunk in answer["evidence"]) == 4.0


def test_one_pixel_bound_alone_is_enough(omniqa, checkpoint, clip):
    for bound in (["--max-pixels", 50176], ["--min-pixels", 900_000]):
        code, out, _ = omniqa("ask", clip, "What?", "--model", checkpoint, "--json", "--max-new-tokens", 1, *bound)
        media = json.loads(out)["media"]
        assert code == 0
        assert (media["width"] * media["height"] <= 50176) == (bound[0] == "--max-pixels")


def test_a_file_name_that_is_no_utf8_survives(shell, clip, tmp_path):
    done = shell(
        """name=$'\\xff.mp4'; cp "$CLIP" "$name"; omniqa ask "$name" "What?" --model "$MODEL" --json -q""",
        cwd=tmp_path,
        env={**os.environ, "CLIP": str(clip), "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == b""
    assert os.fsencode(json.loads(done.stdout)["video"]) == b"\xff.mp4"


@pytest.mark.parametrize("options", [["--method", "none"], ["--retention", 1], ["--set", "tds=false"]])
def test_methods_and_their_options(ask_json, clip, options):
    (answer,) = ask_json(clip, "What?", *options)
    full = "tds=false" not in options
    assert answer["retention"]["achieved"] == pytest.approx(1.0 if full else 0.3, abs=0.005)
    assert answer["retention"]["target"] == (1.0 if full else 0.3)


def test_options_can_come_from_the_environment(ask_json, clip, monkeypatch):
    monkeypatch.setenv("OMNIQA_RETENTION", "0.5")
    monkeypatch.setenv("OMNIQA_NO_AUDIO", "1")
    (answer,) = ask_json(clip, "What?")
    assert answer["retention"]["target"] == 0.5
    assert answer["tokens"]["audio"] == 0


def test_video_or_question_can_come_from_stdin(shell, clip, ask_json):
    (expected,) = ask_json(clip, "What is seen?")
    common = '--model "$MODEL" --max-new-tokens 6 --min-pixels 784 --json'
    piped = shell(f'omniqa ask - "What is seen?" {common} < "{clip}"')
    given = json.loads(piped.stdout)
    assert given | {"timing_s": 0, "memory": 0, "evidence": 0} == expected | {
        "video": "-",
        "model": piped.args[2].split('MODEL="')[1].split('"')[0],
        "timing_s": 0,
        "memory": 0,
        "evidence": 0,
    }
    # The number of threads may differ, and with it the last digits.
    assert given["evidence"] == [
        {name: pytest.approx(v, abs=1e-4) for name, v in e.items()} for e in expected["evidence"]
    ]
    asked = shell(f'echo "What is seen?" | omniqa ask "{clip}" - {common} -q')
    assert json.loads(asked.stdout)["answer"] == expected["answer"]
    assert asked.stderr == b""


def test_a_closed_pipe_is_no_traceback(shell, clip):
    done = shell(f'omniqa ask "{clip}" "What?" -Q "Where?" --model "$MODEL" --json -q --max-new-tokens 2 | head -c 1')
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the folder of real clips is not here")
@pytest.mark.parametrize("path", sorted(REAL_CLIPS.glob("*")), ids=lambda path: path.name)
def test_every_real_clip_gets_an_answer_or_the_documented_exit_code(ask, path):
    code, out, err = ask(path, "What happens?", "--json", "--max-frames", 16, "--max-pixels", 50176)
    assert code == (3 if path.suffix == ".md" else 0), err
    assert "Traceback" not in err
    if code == 0:
        answer = json.loads(out)
        n = answer["tokens"]["video"] + answer["tokens"]["audio"]
        assert abs(answer["retention"]["achieved"] - 0.3) <= max(0.002, 1 / n)
    else:
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.mp4", "What?"], 3, "nowhere.mp4"),
        (["CLIP"], 2, "no question"),
        (["CLIP", "word " * 20_000], 2, "100,000 characters; at most 20,000"),
        (["CLIP", "  "], 2, "empty"),
        (["-", "-"], 2, "both"),
        (["CLIP", "What?", "--retention", "0"], 2, "Retention 0"),
        (["CLIP", "What?", "--method", "fastest"], 2, "none, omnidrop"),
        (["CLIP", "What?", "--set", "speed=9"], 2, "schedule"),
        (["CLIP", "What?", "--fps", "0"], 2, "frame rate"),
        (["CLIP", "What?", "--max-new-tokens", "0"], 2, "max-new-tokens"),
        (["CLIP", "What?", "--start", "60"], 3, "5"),
        (["CLIP", "What?", "--no-audio", "--no-video"], 2, "both"),
        (["CLIP", "What?", "--device", "toaster"], 2, "toaster"),
        (["CLIP", "What?", "--dtype", "int3"], 2, "int3"),
        (["CLIP", "What?", "--attn", "flash", "--device", "cpu"], 2, "CUDA"),
        (["CLIP", "What?", "--set", "schedule=paper"], 2, "paper"),
        (["CLIP", "What?", "--trace", "no/such/folder/t.npz"], 2, "folder"),
        (["CLIP", "What?", "--nonsense"], 2, "--nonsense"),
    ],
)
def test_errors_are_one_line_with_the_documented_exit_code(ask, clip, arguments, code, message):
    got, out, err = ask(*(clip if argument == "CLIP" else argument for argument in arguments))
    assert got == code
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err


def test_a_missing_model_is_exit_code_4(omniqa, clip):
    code, out, err = omniqa("ask", clip, "What?", "--model", "no/such/model/here")
    assert (code, out, len(err.splitlines())) == (4, "", 1)


def test_too_little_memory_is_exit_code_5(ask, clip, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    code, _, err = ask(clip, "What?")
    assert code == 5
    assert "GiB are free" in err


def test_running_out_of_memory_is_exit_code_5(ask, clip, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr("omniqa.pipeline.preprocess.log_mel", full)
    code, _, err = ask(clip, "What?")
    assert code == 5
    assert "--max-frames" in err


def test_an_interrupt_is_exit_code_130(ask, clip, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("omniqa.pipeline.preprocess.log_mel", interrupt)
    code, _, err = ask(clip, "What?")
    assert (code, err) == (130, "omniqa: interrupted\n")


def test_debug_shows_the_traceback(ask):
    _, _, err = ask("nowhere.mp4", "What?", "--debug")
    assert "Traceback" in err


def test_memory_does_not_grow_with_the_length_of_the_clip(checkpoint, tmp_path):
    """Ten minutes against one, with as many frames: only the sound may grow, and what is made of it."""

    def peak(seconds):
        frames = [np.ascontiguousarray(grey(i % 8, 240, 320)) for i in range(seconds)]
        sound = np.full(seconds * 16000, 0.1, np.float32)
        path = write_clip(tmp_path / f"{seconds}.mkv", Video(frames, 1, codec="mpeg4"), Audio(sound, rate=16000))
        command = [sys.executable, "-m", "omniqa", "ask", path, "What?", "--model", checkpoint, "--json", "-q"]
        options = ["--max-frames", "32", "--max-new-tokens", "1", "--set", "audio_attention=window"]
        done = subprocess.run([*map(str, command), *options], stdout=subprocess.PIPE, check=True)
        answer = json.loads(done.stdout)
        return answer["memory"]["peak_rss_bytes"], answer["tokens"]["audio"]

    (short, short_tokens), (long, long_tokens) = peak(60), peak(600)
    assert long_tokens == 10 * short_tokens
    width, layers = 128, 6
    # A second: 16000 samples; 100 mel frames of 128; 25 tokens with embeddings, two positions' queries and keys of 64,
    # and in every layer keys and values and a handful of activations.
    per_token = 640 * 4 + 4 * 128 * 4 + width * 4 * 4 + 4 * 64 * 4 + layers * 2 * 64 * 4 + 20 * width * 4
    assert long - short <= (long_tokens - short_tokens) * per_token * 1.5 + 24 * 2**20


def test_compare_shows_the_answer_with_all_tokens_beside_the_pruned_one(ask, ask_json, clip):
    code, out, err = ask(clip, "What is seen?", "-Q", "Where?", "--compare", "none")
    assert code == 0, err
    assert [line.split("  ")[0].strip() for line in out.splitlines()] == ["omnidrop 0.3", "none"] * 2
    first, second = ask_json(clip, "What is seen?", "-Q", "Where?", "--compare", "none")
    (alone,) = ask_json(clip, "Where?", "--method", "none")
    assert first["compared"]["retention"]["achieved"] == second["compared"]["retention"]["achieved"] == 1
    assert second["compared"]["answer"] == alone["answer"]
    assert second["retention"]["achieved"] == pytest.approx(0.3, abs=0.005)
    assert ask(clip, "What?", "--compare", "fastest")[0] == 2


def test_verbose_shows_the_table(ask, clip):
    _, _, err = ask(clip, "What is seen?", "-v")
    for word in ("prefill", "vision encoder", "peak memory", "retention 0.3", "attended most"):
        assert word in err


def test_nano_says_which_words_it_knows_instead_of_those_that_it_was_asked_in(omniqa):
    clip = ROOT / "sample_media" / "hello.mp4"
    code, _, err = omniqa("ask", clip, "What is said?", "--model", "nano")
    assert code == 0
    after = err.partition("not trained on the words 'What is said?'")[2].splitlines()[1:]
    assert len(after) == 3
    assert all(is_trained(line.removeprefix("omniqa: ")) for line in after)
    code, _, err = omniqa("ask", clip, "What does the voice say?", "--model", "nano")
    assert (code, "not trained" in err) == (0, False)


def test_nano_lists_questions_about_a_clip(omniqa):
    clip = ROOT / "sample_media" / "hello.mp4"
    code, out, err = omniqa("nano", "questions", clip)
    assert code == 0, err
    lines = out.splitlines()
    assert "What does the voice say?" in lines
    assert len(set(lines)) == len(lines)
    assert all(map(is_trained, lines))
    code, out, err = omniqa("nano", "questions", ROOT / "README.md")
    assert (code, out, len(err.splitlines())) == (3, "", 1)


@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
def test_subtitles_hold_one_cue_for_each_question(ask_json, clip, tmp_path, name):
    answers = ask_json(clip, "What is seen?", "-Q", "What is heard?", "--subtitles", tmp_path / name)
    assert all(answer["evidence_spans"] for answer in answers)
    assert (tmp_path / name).read_text(encoding="utf-8").count(" --> ") == len(answers) == 2


@pytest.mark.parametrize(("file", "why"), [("a.txt", "FILE.srt or FILE.vtt"), ("nowhere/a.srt", "there is no folder")])
def test_subtitles_that_cannot_be_written_are_refused_before_the_model_is_loaded(ask, clip, tmp_path, file, why):
    code, _, err = ask(clip, "What?", "--subtitles", tmp_path / file)
    assert code == 2
    assert why in err


def test_cut_writes_the_evidence_and_names_it_in_the_json(ask_json, clip, tmp_path):
    answers = ask_json(clip, "What is seen?", "-Q", "What is heard?", "--cut", tmp_path / "cuts")
    for answer in answers:
        assert len(answer["cuts"]) == len(answer["evidence_spans"]) > 0
        for path, span in zip(answer["cuts"], answer["evidence_spans"], strict=True):
            assert float(probe(path).duration) == pytest.approx(span["end_s"] - span["start_s"], abs=0.1)
    written = {path for answer in answers for path in answer["cuts"]}
    assert written == {str(path) for path in (tmp_path / "cuts").iterdir()}


def test_a_cut_folder_that_is_a_file_is_refused_before_the_model_is_loaded(ask, clip):
    code, out, err = ask(clip, "What?", "--cut", clip)
    assert (code, out) == (2, "")
    assert "can't be made" in err


def test_an_answer_is_printed_even_if_its_evidence_can_not_be_cut_out(ask, clip, tmp_path, monkeypatch):
    def fail(*arguments):
        raise MediaError("it can't be cut.")

    monkeypatch.setattr("omniqa.media.cut.cut", fail)
    code, out, err = ask(clip, "What?", "--cut", tmp_path, "--json")
    assert code == 3
    assert json.loads(out)["answer"] is not None
    assert "it can't be cut" in err


def test_a_report_holds_the_answers_of_all_questions_and_methods(ask_json, clip, tmp_path):
    file = tmp_path / "a.html"
    answers = ask_json(clip, "What is seen?", "-Q", "Who <b>speaks</b>?", "--compare", "none", "--report", file)
    page = file.read_text(encoding="utf-8")
    assert page.count('class="run"') == 4
    assert [page.count(answer["question"]) for answer in answers] == [page.count("What is seen?"), 0]
    assert "Who &lt;b&gt;speaks&lt;/b&gt;?" in page
    assert "omnidrop at 0.3" in page
    assert "none at 1" in page


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--report", "a.txt"), "FILE.html"),
        (("--report", "nowhere/a.html"), "there is no folder"),
        (("--embed-media",), "--report"),
    ],
)
def test_reports_that_cannot_be_written_are_refused_before_the_model_is_loaded(ask, clip, arguments, why):
    code, _, err = ask(clip, "What?", *arguments)
    assert code == 2
    assert why in err
