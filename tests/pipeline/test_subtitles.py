"""Answers as subtitles, which hostile text can't break."""

import re
from types import SimpleNamespace

import pytest

from omniqa.pipeline.answer import EvidenceSpan
from omniqa.pipeline.subtitles import subtitles

HOSTILE = "one\r\n\r\n2\n00:00:00,000 --> 99:00:00,000\n\n<script>x</script>{\\an8} & NOTE\x1b[2J\x00\u2028end"


def answer(text, *spans):
    return SimpleNamespace(text=text, evidence_spans=tuple(EvidenceSpan(*span, 1.0, 0.5, 0.5) for span in spans))


def test_srt_has_a_cue_over_the_strongest_span_of_each_answer_in_order_of_time():
    told = [answer("late", (3661.5, 3663.0), (0.0, 2.0)), answer("none"), answer("early", (0.0, 59.9996))]
    assert subtitles(told, ".srt") == (
        "1\n00:00:00,000 --> 00:01:00,000\nearly\n\n2\n01:01:01,500 --> 01:01:03,000\nlate\n"
    )


def test_vtt_begins_with_its_name_and_has_points():
    assert subtitles([answer("a", (1.0, 2.0))], ".vtt") == "WEBVTT\n\n1\n00:00:01.000 --> 00:00:02.000\na\n"
    assert subtitles([], ".vtt") == "WEBVTT\n"
    assert subtitles([], ".srt") == ""


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_a_hostile_answer_stays_one_cue_of_plain_text(suffix):
    written = subtitles([answer(HOSTILE, (1.0, 2.0))], suffix)
    cues = [block for block in written.strip().split("\n\n") if block != "WEBVTT"]
    assert len(cues) == 1
    assert written.count("-->") == 1
    assert not re.search(r"[<\x00\x1b\r\u2028]", written)
    assert suffix == ".vtt" or not re.search("[{}]", written)  # braces mean nothing in WebVTT


def test_an_empty_answer_is_a_cue_that_is_not_empty():
    assert subtitles([answer(" \n", (0.0, 1.0))], ".srt").splitlines()[2] == "…"
