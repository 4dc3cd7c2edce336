"""Asked in words that it was not trained on, nano says which words it knows."""

from itertools import islice

import pytest

import omniqa
from omniqa.nano import world
from omniqa.nano.wordings import is_trained, one_of_each_kind, questions_for, script_of
from tests.conftest import ROOT

HELLO = ROOT / "sample_media" / "hello.mp4"
SCRIPTS = [*world.test_scripts(20), *world.test_scripts(5, 16, 4)]


@pytest.fixture(scope="module")
def nano():
    return omniqa.load("nano", device="cpu")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{len(script.scenes)}-{script.seed}")
def test_every_question_of_the_world_is_in_trained_words(script):
    assert all(is_trained(question.prompt) for question in world.questions(script))


@pytest.mark.parametrize(
    "question",
    [
        "What is said?",
        "What happens?",
        "What colour is the dog?",
        "what does the voice say",
        "Which shape is purple?",
        "Is a yellow star shown? And where?",
        "How many times is the bell heard?",
        "",
    ],
)
def test_other_words_are_not_trained(question):
    assert not is_trained(question)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{len(script.scenes)}-{script.seed}")
def test_a_description_is_read_back_into_a_script_that_has_it(script):
    description = world.description(script)
    assert world.description(script_of(description)) == description


@pytest.mark.parametrize("text", ["", "a dog", "red circle", "red circle, beep; ", "red circle, beep, digit 7"])
def test_what_describes_no_clip_gives_no_script(text):
    assert script_of(text) is None


def test_suggestions_are_trained_and_nano_answers_them_as_it_describes_the_clip(nano):
    found = list(islice(one_of_each_kind(questions_for(nano, HELLO)), 8))
    assert {"word", "seen", "heard_while_seen"} & {one.kind for one in found}
    clip = nano.encode(HELLO)
    for one in found:
        assert is_trained(one.text)
        assert one.answer in (None, nano.ask(clip, one.text, "none", 1.0).text)


def test_the_likest_wordings_come_first(nano):
    def first(question):
        return next(questions_for(nano, HELLO, near=question)).kind

    assert first("What is said?") == "word"
    assert first("What happens?") == "description"
    assert first("Which letter can one read?") == "letter"
