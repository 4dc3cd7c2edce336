"""A report is one HTML file about one clip; what it shows is what the answer holds."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import omniqa
from omniqa.errors import MediaError, UsageError
from omniqa.media.clip import Clip, sample
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import AUDIO, STANDARD, VIDEO, MediaShape
from omniqa.report import film, render, save_report
from omniqa.report.data import MOST_PARTS, Figures, run_of, words_beside
from omniqa.report.page import clock
from omniqa.report.pictures import jpeg, jpeg_within, mel_picture
from tests.media.clips import Audio, Video, grey, tone, write_clip
from tests.report.conftest import QUESTION, TIGER

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e{{ 7*7 }}'\""


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def decoded(text):
    return np.frombuffer(base64.b64decode(text), np.uint8)


def test_the_marks_are_those_of_the_trace(answers):
    answer = answers[0]
    run = run_of(answer, Figures())
    for kind, marks in ((VIDEO, run.video), (AUDIO, run.audio)):
        mine = answer.trace.modality == kind
        layers = decoded(marks.layers)
        for layer, alive in enumerate(answer.trace.alive):
            assert ((layers > layer) == alive[mine]).all()
        drawn = np.maximum(answer.trace.surplus, 0)
        assert np.allclose((decoded(marks.shade) / 255) ** 2, drawn[mine] / drawn.max(), atol=0.005)


def test_layers_and_timeline_add_up(answers):
    for answer in answers:
        run = run_of(answer, Figures())
        assert [layer.both for layer in run.layers] == pytest.approx(answer.retention.per_layer)
        assert sum(part.video + part.audio for part in run.parts) == pytest.approx(1)
        assert [part.start_s for part in run.parts] == sorted(chunk.start_s for chunk in answer.chunks)


def test_a_very_long_timeline_is_drawn_in_fewer_parts(answers):
    chunk = answers[0].chunks[0]
    many = tuple(
        replace(chunk, start_s=2.0 * k, end_s=2.0 * k + 2, score=1.0, video=0.5, audio=0.5) for k in range(999)
    )
    parts = run_of(replace(answers[0], chunks=many), Figures()).parts
    assert len(parts) <= MOST_PARTS
    assert (parts[0].start_s, parts[-1].end_s) == (0, 1998)
    assert sum(part.video for part in parts) == pytest.approx(0.5)


def test_the_page_asks_the_network_for_nothing(answers):
    page = render(answers[:1])
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|url\(|@import|fetch\(", page)


def test_what_others_write_is_escaped(answers):
    hostile = replace(answers[0], video=HOSTILE, question=HOSTILE, text=HOSTILE, model=HOSTILE, method=HOSTILE)
    page = render([hostile, hostile], TIGER)
    assert page.count("<script") == page.count("</script") == 2
    assert "<img src=x" not in page
    assert "{{ 7*7 }}" in page
    assert "\u202e" not in page
    assert data_of(page)["clip"]["name"] == HOSTILE


def test_a_cached_encoding_and_an_encoded_clip_have_the_same_pictures(nano_qa, answers, tmp_path):
    whole = data_of(render(answers[:1]))
    encoded = nano_qa.encode(TIGER)
    assert data_of(render([nano_qa.ask(encoded, QUESTION)]))["second"] == whole["second"]
    cached = omniqa.load("nano", device="cpu", cache=tmp_path)
    for _ in range(2):
        answer = cached.ask(TIGER, QUESTION)
        assert data_of(render([answer]))["runs"] == whole["runs"]
    assert answer.stats.timing_s["decode"] == 0


def test_a_clip_of_arrays_has_to_be_given_again(nano_qa, tmp_path):
    clip = sample(TIGER, ClipOptions().within(nano_qa.pixels), geometry=nano_qa.model.geometry)
    answer = nano_qa.ask(clip, QUESTION)
    with pytest.raises(UsageError, match="give that clip"):
        answer.report(tmp_path / "a.html")
    answer.report(tmp_path / "a.html", clip)
    assert QUESTION in (tmp_path / "a.html").read_text()
    with pytest.raises(UsageError, match="no file"):
        answer.report(tmp_path / "a.html", clip, embed_media=True)


@pytest.mark.parametrize("missing", ["picture", "sound"])
def test_a_clip_may_lack_picture_or_sound(nano_qa, tmp_path, missing):
    path = tmp_path / ("a.mp3" if missing == "picture" else "a.mp4")
    video = Video([grey(k % 8, 112, 112) for k in range(40)], 10)
    if missing == "picture":
        write_clip(path, audio=Audio(tone(4.0), codec="libmp3lame"))
    else:
        write_clip(path, video)
    page = render([nano_qa.ask(path, QUESTION)], embed_media=True)
    assert ('id="film"' in page, 'id="sound"' in page) == (missing == "sound", missing == "picture")
    assert f'src="data:{"audio/mpeg" if missing == "picture" else "video/mp4"};base64,' in page


def test_a_range_is_shown_on_the_files_clock(nano_qa):
    answer = nano_qa.ask(TIGER, QUESTION, sampling=ClipOptions(start=3, end=6))
    data = data_of(render([answer]))
    assert (data["clip"]["start_s"], data["clip"]["end_s"]) == (3, 6)
    assert data["clip"]["grids"] == [3, 4, 5]
    assert data["runs"][0]["parts"][0]["start_s"] == 3


def test_a_file_that_changed_is_refused(nano_qa, tmp_path):
    path = tmp_path / "a.mp4"
    shutil.copy(TIGER, path)
    answer = nano_qa.ask(path, QUESTION)
    write_clip(path, Video([grey(k % 8, 112, 112) for k in range(40)], 10), Audio(tone(4.0)))
    with pytest.raises(MediaError, match="has changed"):
        render([answer])


def test_several_reports_about_a_file_decode_it_once_unless_it_is_taken_otherwise(nano_qa, tmp_path, monkeypatch):
    path, taken = shutil.copy(TIGER, tmp_path / "a.mp4"), []
    stream = film.stream_clip
    monkeypatch.setattr(film, "stream_clip", lambda *args, **named: taken.append(args) or stream(*args, **named))
    for question in (QUESTION, "What is heard first?"):
        assert "data:image/jpeg" in render([nano_qa.ask(path, question)])
    assert len(taken) == 1
    render([nano_qa.ask(path, QUESTION, sampling=ClipOptions(start=1))])
    assert len(taken) == 2


def test_words_that_the_first_answer_lacks_are_marked(answers):
    texts = ["green heart, noise", "green heart, noise", "red heart, noise twice", ""]
    page = render([replace(answers[0], text=text) for text in texts])
    assert re.findall(r"<mark>(.*?)</mark>", page) == ["red", "twice"]
    assert words_beside("a b", "") == ()


def test_one_report_is_about_one_clip(nano_qa, answers):
    other = nano_qa.ask(TIGER.with_name("hello.mp4"), QUESTION)
    with pytest.raises(UsageError, match="several"):
        render([answers[0], other])


def test_the_report_is_written_as_utf_8(answers, tmp_path):
    save_report(tmp_path / "a.html", [replace(answers[0], text="Grüße 猫", video="a\udcff\x00.mp4")], TIGER)
    assert "Grüße 猫" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_jpegs_show_what_was_given_and_keep_to_their_bytes():
    image = pytest.importorskip("PIL.Image", reason="needs Pillow to read a JPEG")
    pixels = np.zeros((168, 280, 3), np.uint8)
    pixels[:, :140], pixels[:, 140:] = (200, 30, 40), (20, 200, 90)
    seen = np.asarray(image.open(io.BytesIO(jpeg(pixels, 140, 84))).convert("RGB")).astype(int)
    assert seen.shape == (84, 140, 3)
    assert abs(seen[40, 20] - (200, 30, 40)).max() < 8
    assert abs(seen[40, 120] - (20, 200, 90)).max() < 8
    noise = np.random.default_rng(0).integers(0, 256, (560, 560, 3)).astype(np.uint8)
    assert len(jpeg_within(noise, 24_000)) <= 24_000


def test_low_frequencies_are_at_the_bottom_and_loud_ones_light():
    image = pytest.importorskip("PIL.Image", reason="needs Pillow to read a JPEG")
    mel = np.full((128, 400), -1.5, np.float32)
    mel[:16] = 1.5
    seen = np.asarray(image.open(io.BytesIO(mel_picture(mel))).convert("L"))
    assert seen.shape == (128, 400)
    assert seen[-8:].mean() > 200 > 60 > seen[:64].mean()


def test_two_minutes_take_less_than_3_mb_even_if_they_are_noise(answers):
    rng, frames, audio_tokens = np.random.default_rng(0), 128, 3000
    noise = Clip.from_arrays(
        rng.integers(0, 256, (2, 672, 896, 3)).astype(np.uint8),
        waveform=rng.standard_normal(120 * 16_000).astype(np.float32),
    )
    times = tuple(Fraction(120 * k, frames) for k in range(frames))
    clip = replace(noise, frames=np.broadcast_to(noise.frames[0], (frames, 672, 896, 3)), frame_times=times)
    shape = MediaShape(clip.grid_times, 24, 32, audio_tokens)
    modality = np.repeat(np.int8([VIDEO, AUDIO]), [shape.video_tokens, audio_tokens])
    alive = np.arange(28)[:, None] < rng.integers(1, 29, len(modality))
    drawn = rng.random(len(modality)).astype(np.float32)
    trace = replace(answers[0].trace, modality=modality, alive=alive, surplus=drawn)
    asked = replace(answers[0].asked, shape=shape, geometry=STANDARD, planned=tuple(alive.sum(1).tolist()))
    page = render([replace(answers[0], trace=trace, asked=asked)], clip)
    assert page.count("data:image/jpeg") == frames + 1
    assert len(page.encode()) < 3_000_000


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (4.5, "4.5 s"), (59.96, "1:00"), (64.5, "1:04.5"), (3700, "1:01:40")]
)
def test_times_are_told_on_a_clock(seconds, text):
    assert clock(seconds) == text
