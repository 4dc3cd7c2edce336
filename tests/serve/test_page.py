"""The page at `/` in a browser: a clip, questions, streamed answers, a timeline that seeks, errors as sentences."""

import json
import shutil
import threading

import pytest

from tests.browser import serious_issues, shot
from tests.serve.conftest import NANO, SAMPLES, running, settings_for

TIGER = str(SAMPLES / "tiger.mp4")
KEY = "sk-page"


@pytest.fixture
def page(browser, nano_server):
    """The page, with a list of what its console said."""
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    page.set_default_timeout(30_000)
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(nano_server.base)
    page.get_by_text("nano", exact=True).wait_for()
    yield page
    page.close()


def ask(page, question):
    """Ask, and wait for the answer; its text."""
    before = page.locator(".facts").count()
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_role("button", name="Ask").click()
    page.locator(".facts").nth(before).wait_for()
    return page.locator(".answer").nth(before).inner_text()


def test_an_uploaded_clip_is_asked_about_and_the_timeline_seeks(page, nano):
    shot(page, "empty")
    page.get_by_label("choose a file").set_input_files(TIGER)
    page.get_by_role("status").get_by_text("tiger.mp4", exact=True).wait_for()
    first = ask(page, "What happens, in order?")
    assert first == nano.ask(TIGER, "What happens, in order?").text
    second = ask(page, "What is heard last?")
    assert second
    assert page.evaluate("state.turns.map((turn) => turn.details.timing_s.vision_encoder === 0)")[1]
    evidence = page.evaluate("state.turns[1].details.evidence")
    chunks = page.locator("#timeline button")
    assert chunks.count() == len(evidence)
    page.evaluate("document.getElementById('player').play = () => Promise.resolve()")
    page.locator("#player").evaluate("player => player.readyState || new Promise(done => player.onloadeddata = done)")
    for number, chunk in enumerate(sorted(evidence, key=lambda chunk: chunk["start_s"])):
        chunks.nth(number).click()
        assert page.evaluate("document.getElementById('player').currentTime") == pytest.approx(
            chunk["start_s"], abs=0.1
        )
    shot(page, "answered")
    with page.expect_download() as download:
        page.get_by_role("button", name="Report").click()
    report = open(download.value.path()).read()  # noqa: SIM115
    assert download.value.suggested_filename == "report.html"
    assert all(text in report for text in ("<!doctype html>", "What happens, in order?", second))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    saved = json.loads(open(download.value.path()).read())  # noqa: SIM115
    assert [turn["answer"] for turn in saved["turns"]] == [first, second]
    page.get_by_role("button", name="New conversation").click()
    assert page.locator("#turns li").count() == 0
    assert page.said == []


DROP = """async () => {
  const content = await (await fetch("/v1/media/hello.mp4")).blob();
  const carried = new DataTransfer();
  carried.items.add(new File([content], "dropped.mp4", { type: "video/mp4" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
}"""


def test_a_clip_is_dropped_on_the_page(page):
    page.evaluate(DROP)
    page.get_by_role("status").get_by_text("dropped.mp4", exact=True).wait_for()
    assert ask(page, "What does the voice say?") == "hello"


def test_a_clip_is_chosen_from_the_server_and_plays(page):
    page.get_by_label("or one on the server").select_option("hello.mp4")
    page.get_by_role("status").get_by_text("hello.mp4", exact=True).wait_for()
    assert ask(page, "What does the voice say?") == "hello"
    assert page.locator("#player").evaluate("player => player.duration") > 1


@pytest.fixture
def held(nano, monkeypatch):
    """nano, which waits after each piece of an answer until that is released."""
    release, stream = threading.Semaphore(0), nano.stream

    def waiting(*given, **named):
        pieces = stream(*given, **named)
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                return end.value
            yield piece
            release.acquire(timeout=20)

    monkeypatch.setattr(nano, "stream", waiting)
    yield release
    release.release(1000)


def test_the_answer_grows_piece_by_piece(page, nano, held):
    page.get_by_label("or one on the server").select_option("tiger.mp4")
    page.get_by_label("Question", exact=True).fill("What happens, in order?")
    page.get_by_role("button", name="Ask").click()
    seen = [""]
    for _ in range(3):
        page.wait_for_function(
            "length => document.querySelector('.answer')?.textContent.length > length", arg=len(seen[-1])
        )
        seen.append(page.locator(".answer").inner_text())
        held.release()
    held.release(1000)
    page.locator(".facts").wait_for()
    whole = page.locator(".answer").inner_text()
    assert [whole.startswith(text) for text in seen] == [True] * 4
    assert len({*seen, whole}) == 5


def test_an_answer_is_stopped_and_its_question_can_be_asked_again(page, nano_server, held):
    page.get_by_label("or one on the server").select_option("tiger.mp4")
    page.get_by_label("Question", exact=True).fill("What happens, in order?")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_function("() => document.querySelector('.answer')?.textContent.length > 0")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Ask").wait_for()
    assert page.get_by_label("Question", exact=True).input_value() == "What happens, in order?"
    held.release(1000)
    assert ask(page, "What happens, in order?")


def test_an_error_is_a_sentence(page, tmp_path):
    (tmp_path / "notes.mp4").write_text("no clip")
    page.get_by_label("choose a file").set_input_files(tmp_path / "notes.mp4")
    page.get_by_role("status").get_by_text("notes.mp4").wait_for()
    page.get_by_label("Question", exact=True).fill("What is seen?")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("alert").get_by_text("notes.mp4").wait_for()
    shot(page, "error")
    page.locator("#player").wait_for(state="hidden")
    text = page.get_by_role("alert").inner_text()
    assert text.endswith(".")
    assert "\n" not in text
    assert page.get_by_label("Question", exact=True).input_value() == "What is seen?"


def test_with_a_key_the_page_asks_for_it_and_then_works(browser, nano):
    with running(nano, settings_for(SAMPLES, api_key=KEY, **NANO)) as client:
        page = browser.new_page()
        page.set_default_timeout(30_000)
        try:
            page.goto(client.base)
            for key, expected in (("sk-pagf", "missing or wrong"), (KEY, None)):
                page.get_by_label("API key").fill(key)
                page.get_by_role("button", name="Use it").click()
                if expected:
                    page.get_by_role("alert").get_by_text(expected).wait_for()
            page.get_by_label("or one on the server").select_option("hello.mp4")
            assert ask(page, "What does the voice say?") == "hello"
            assert page.locator("#player").evaluate("player => player.duration") > 1
        finally:
            page.close()


def test_what_others_write_is_text_and_never_markup(page, tmp_path):
    name = tmp_path / "<img src=x onerror=alert(1)>.mp4"
    shutil.copy(TIGER, name)
    page.get_by_label("choose a file").set_input_files(name)
    page.get_by_role("status").get_by_text("<img").wait_for()
    ask(page, "<b>What</b> is heard last?")
    assert page.locator("#turns b, img").count() == 0
    assert page.said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_issue(browser, nano_server, scheme):
    page = browser.new_page(color_scheme=scheme, bypass_csp=True)
    page.set_default_timeout(30_000)
    try:
        page.goto(nano_server.base)
        page.get_by_label("or one on the server").select_option("tiger.mp4")
        ask(page, "What is heard last?")
        shot(page, scheme)
        assert serious_issues(page) == []
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        shot(page, f"{scheme}-narrow")
    finally:
        page.close()
