"""A report in a browser, opened from the disk."""

import shutil
from dataclasses import replace

import pytest

from omniqa.report import save_report
from tests.browser import serious_issues, shot
from tests.media.clips import Audio, tone, write_clip
from tests.report.conftest import TIGER

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def files(answers, nano_qa, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    save_report(folder / "one.html", answers[:1])
    save_report(folder / "two.html", answers, embed_media=True)
    name = folder / "<img src=x onerror=alert(1)>.mp4"
    shutil.copy(TIGER, name)
    hostile = [replace(answer, video=str(name), question=HOSTILE, text=HOSTILE) for answer in answers]
    save_report(folder / "hostile.html", hostile)
    write_clip(folder / "sound.mp3", audio=Audio(tone(7.0), codec="libmp3lame"))
    save_report(folder / "sound.html", [nano_qa.ask(folder / "sound.mp3", "What is heard?")])
    return folder


@pytest.fixture
def opened(browser, files):
    """Opens a report; its console must stay silent."""
    pages = []

    def open_page(name, **how):
        page = browser.new_page(viewport={"width": 1100, "height": 800}, **how)
        page.set_default_timeout(30_000)
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: (page.said.append("a dialog"), dialog.dismiss()))
        page.goto((files / name).as_uri())
        pages.append(page)
        return page

    yield open_page
    assert [page.said for page in pages] == [[]] * len(pages)
    for page in pages:
        page.close()


def marked(page):
    """How many patches of the film are dark."""
    return page.evaluate(
        """[...document.querySelectorAll('.frame canvas')].map((canvas) => {
          const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          return pixels.filter((value, place) => place % 4 === 3 && value > 200).length;
        }).reduce((sum, count) => sum + count)"""
    )


def test_the_slider_changes_which_patches_are_dark(opened, answers):
    page, answer = opened("one.html"), answers[0]
    video = answer.trace.modality == 0
    for layer in (0, 7, len(answer.trace.alive) - 1):
        page.get_by_role("slider", name="Decoder layer").fill(str(layer))
        assert marked(page) == (~answer.trace.alive[layer, video]).sum()
        assert f"{layer} of " in page.locator("#layer-text").inner_text()
    before = page.locator("line.cursor").first.get_attribute("x1")
    page.get_by_role("slider", name="Decoder layer").press("ArrowLeft")
    assert page.locator("line.cursor").first.get_attribute("x1") != before
    page.get_by_label("darken pruned tokens").uncheck()
    assert marked(page) == 0
    shot(page, "report")


def test_a_click_on_a_moment_enlarges_its_two_frames(opened):
    page = opened("one.html")
    page.locator(".frame").nth(2).click()
    moment = page.get_by_role("dialog", name="2 s to 3 s")
    moment.wait_for()
    loaded = "all => Promise.all(all.map((image) => image.decode().then(() => image.naturalWidth)))"
    assert moment.locator(".still img").evaluate_all(loaded) == [168, 168]
    shot(page, "report-moment")
    moment.get_by_role("button", name="Later").click()
    page.get_by_role("dialog", name="3 s to 4 s").wait_for()
    page.keyboard.press("Escape")
    page.locator("#mel-marks").click(position={"x": 1, "y": 20})
    page.get_by_role("dialog", name="0 s to 1 s").wait_for()


def test_the_timeline_opens_the_moment_of_its_chunk(opened, answers):
    page = opened("one.html")
    parts = page.locator("#timeline button")
    assert parts.count() == len(answers[0].chunks)
    parts.nth(1).click()
    title = page.locator("#moment-title").inner_text()
    assert title in ("2 s to 3 s", "3 s to 4 s")


def test_all_of_it_works_with_the_keyboard(opened):
    page = opened("one.html")
    parts = page.locator("#timeline button")
    parts.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement === document.querySelectorAll('#timeline button')[1]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "layer"
    page.locator(".frame").first.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="7 s to 8 s").wait_for()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("dialog", name="6 s to 7 s").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.dataset.moment") == "7"


def test_several_answers_are_shown_one_at_a_time_and_compared(opened, answers):
    page, trace = opened("two.html"), answers[0].trace
    page.get_by_role("slider", name="Decoder layer").fill("7")
    assert page.locator(".answer:visible").count() == 1
    page.get_by_label("compare what is kept with").select_option("1")
    kept = trace.alive[7, trace.modality == 0].sum()
    assert marked(page) == 0  # all tokens are kept by the other
    blue = page.evaluate(
        """[...document.querySelectorAll('.frame canvas')].map((canvas) => {
          const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          return pixels.filter((value, place) => place % 4 === 3 && value > 0).length;
        }).reduce((sum, count) => sum + count)"""
    )
    assert blue == (trace.modality == 0).sum() - kept
    page.locator("#pick-1").check()
    page.get_by_label("compare what is kept with").select_option("")
    assert marked(page) == 0
    assert page.locator("section.run:visible").first.get_attribute("data-run") == "1"


def test_an_embedded_clip_jumps_to_the_evidence(opened, answers):
    page = opened("two.html")
    player = page.locator("#player")
    player.evaluate("player => player.readyState || new Promise(done => player.onloadeddata = done)")
    page.evaluate("document.getElementById('player').play = () => Promise.resolve()")
    page.locator(".jump:visible").first.click()
    assert player.evaluate("player => player.currentTime") == pytest.approx(
        answers[0].evidence_spans[0].start_s, abs=0.1
    )


def test_sound_alone_is_enlarged_by_chunk(opened):
    page = opened("sound.html")
    assert page.locator("#timeline button").count() == 4
    page.locator("#timeline button").nth(1).click()
    page.get_by_role("dialog", name="2 s to 4 s").wait_for()
    assert page.locator("#excerpt img").count() == 1
    assert page.locator("#large img").count() == 0
    page.keyboard.press("ArrowRight")
    page.get_by_role("dialog", name="4 s to 6 s").wait_for()
    page.keyboard.press("Escape")
    assert "of sound" in page.locator("#layer-text").inner_text()
    assert "picture" not in page.locator("#layer-text").inner_text()


def test_what_others_write_stays_text(opened):
    page = opened("hostile.html")
    assert page.locator("h1:visible").inner_text() == HOSTILE
    assert page.locator("p.answer:visible").inner_text() == HOSTILE
    assert page.locator("img[src=x]").count() == 0
    assert "<img src=x" in page.locator(".name").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_issue(opened, scheme):
    page = opened("two.html", color_scheme=scheme, bypass_csp=True)
    assert serious_issues(page) == []
    page.locator(".frame").first.click()
    assert serious_issues(page) == []
    page.keyboard.press("Escape")
    shot(page, f"report-{scheme}")
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    shot(page, f"report-{scheme}-narrow")
