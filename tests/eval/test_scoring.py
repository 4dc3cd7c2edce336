"""Answers in free text are understood as a reader would."""

import pytest

from omniqa.eval.questions import Question
from omniqa.eval.scoring import normalise, parse_letter, score

OPTIONS = ("moon", "star", "red circle", "circle")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" B.\n", "B"),
        ("(B)", "B"),
        ("[b]", "B"),
        ("B)", "B"),
        ("B: star", "B"),
        ("B. star", "B"),
        ("B.star", "B"),
        ("B star", "B"),
        ("b) a star", "B"),
        ("B - because it shines", "B"),
        ("A, because it shines", "A"),
        ("**B**", "B"),
        ("$\\boxed{B}$", "B"),
        ("<answer>B</answer>", "B"),
        ("The answer is B.", "B"),
        ("the answer is b", "B"),
        ("The correct answer is (B) star.", "B"),
        ("Answer: B", "B"),
        ("ANSWER: B", "B"),
        ("The answer is option B", "B"),
        ("The answer is not A. The answer is B", "B"),
        ("The answer is B. Option A is wrong.", "B"),
        ("The correct option is B", "B"),
        ("I would choose option (b).", "B"),
        ("I think it is B", "B"),
        ("It is (b), I believe", "B"),
        ("Letter C", "C"),
        ("star", "B"),
        ("A star.", "B"),
        ("a star", "B"),
        ("The STAR", "B"),
        ("One can see a star there.", "B"),
        ("The answer is a star.", "B"),
        ("The answer is A", "A"),
        ("A star is shown", "B"),
        ("a red circle", "C"),
        ("There is a red circle to the left.", "C"),
        ("circle", "D"),
        ("Moon or star? I take the second: B", "B"),
        ("A or B", None),
        ("A, B", None),
        ("A and B", None),
        ("E", None),
        ("The answer is Z", None),
        ("I do not know.", None),
        ("a square", None),
        ("Both the moon and the star", None),
        ("At 7 a.m.", None),
        ("", None),
        ("...", None),
    ],
)
def test_letters_in_free_text(answer, letter):
    assert parse_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize(("answer", "letter"), [("C", "C"), ("c", "C"), ("T", "A"), ("D. C", "D"), ("A. T", "A")])
def test_where_options_are_letters_themselves_the_options_letter_comes_first(answer, letter):
    assert parse_letter(answer, ("T", "A", "X", "C")) == letter


@pytest.mark.parametrize(("answer", "letter"), [("two", "B"), ("2", "B"), ("There are 2.", "B"), ("B", "B")])
def test_numbers_are_options_in_words_and_digits(answer, letter):
    assert parse_letter(answer, ("1", "2", "3", "4")) == letter


def test_more_than_four_options_have_letters():
    options = ("uno", "due", "tre", "quattro", "cinque", "sei")
    assert parse_letter("F", options) == "F"
    assert parse_letter("cinque", options) == "E"
    assert parse_letter("F", options[:4]) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Red circle.", "a  red\ncircle"),
        ("The BEGINNING", "beginning"),
        ("two", "2"),
        ("twenty", "20"),
        ("red circle, beep; blue star, bell", "Red circle, beep. Blue star, bell."),
        ("1,000", "1000"),
        ("ﬁsh", "fish"),
    ],
)
def test_short_answers_that_are_the_same(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"), [("A", ""), ("A", "the"), ("3.5", "35"), ("red circle", "red circles"), ("5", "0.5")]
)
def test_short_answers_that_differ(one, other):
    assert normalise(one) != normalise(other)


def test_an_answer_without_a_letter_is_wrong_and_unparsed():
    question = Question(0, "clip", "Which?", "B", OPTIONS)
    assert (score(question, "no idea").said, score(question, "no idea").correct) == (None, False)
    assert (score(question, "C").said, score(question, "C").correct) == ("C", False)
    assert score(question, "the star").correct


def test_short_answers_are_right_if_their_words_are():
    question = Question(0, "clip", "How many?", "2")
    assert score(question, "Two.").correct
    assert not score(question, "two stars").correct
    assert not score(question, "").correct


def test_options_are_worded_as_nanos_are():
    from omniqa.nano.questions import Question as NanoQuestion

    ours = Question(0, "clip", "What is heard?", "B", ("hum", "beep", "bell", "voice"))
    nanos = NanoQuestion("heard", "audio recognition", "audio", ours.text, "B", ours.options, ())
    assert ours.prompt() == ours.prompt("Answer briefly.") == nanos.prompt
    assert Question(0, "clip", "What is heard?", "beep").prompt() == "What is heard?"
    assert Question(0, "clip", "What is heard?", "beep").prompt("Briefly.") == "What is heard?\nBriefly."
