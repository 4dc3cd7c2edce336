"""Every question has one true answer, and guessing gets no further than chance."""

from collections import Counter
from functools import cache
from itertools import product

import pytest

from omniqa.nano.kinds import KINDS
from omniqa.nano.questions import LETTERS, chance, description, questions
from omniqa.nano.scenes import COLOURS, SHAPES, SOUNDS, Scene, Script, Sound, Thing, draw
from tests.nano.slow import Timeline, true_answers

CLIPS = ((4, 1), (8, 2), (8, 4), (16, 4), (20, 8))
FEW, MANY = 50, 500


@cache
def asked(seconds, scenes, count=MANY):
    """(script, its questions) of many clips."""
    scripts = [draw(seed, seconds, scenes) for seed in range(count)]
    return [(script, questions(script, every=True)) for script in scripts]


def every_question():
    return [question for clip in CLIPS for _, several in asked(*clip) for question in several]


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_each_answer_is_what_a_slow_reading_of_the_script_gives_and_nothing_else(clip):
    for script, several in asked(*clip)[:FEW]:
        line = Timeline(script)
        for question in several:
            assert true_answers(question, line) == {question.meaning}, (script.seed, question)


def test_every_kind_is_asked_and_no_other():
    assert {question.kind for question in every_question()} == set(KINDS)


def test_what_nano_has_not_learned_is_asked_only_of_who_wants_every_kind():
    usual = {question.kind for seed in range(MANY) for question in questions(draw(seed, 8, 4))}
    assert usual == {kind.name for kind in KINDS.values() if kind.learned} != set(KINDS)


def test_the_same_script_gives_the_same_questions():
    assert questions(draw(5)) == questions(draw(5))
    assert questions(draw(5)) != questions(draw(6))


def test_more_rounds_give_more_questions_none_of_them_twice():
    once, thrice = questions(draw(5, 8, 4)), questions(draw(5, 8, 4), rounds=3)
    prompts = [question.prompt for question in thrice]
    assert len(thrice) > 1.5 * len(once)
    assert len(set(prompts)) == len(prompts)


def test_there_are_many_questions_to_a_clip():
    assert sum(len(several) for _, several in asked(8, 2)) > 16 * MANY


def test_options_are_four_with_the_answer_once():
    for question in every_question():
        if question.options:
            assert len(question.options) == len(set(question.options)) == 4
            assert question.options[LETTERS.index(question.answer)] == question.meaning
            assert question.meaning in KINDS[question.kind].answers
            assert all(f"{letter}. " in question.prompt for letter in LETTERS)


def test_open_answers_are_among_those_of_their_kind():
    for question in every_question():
        if not question.options and KINDS[question.kind].answers:
            assert question.answer in KINDS[question.kind].answers


def test_evidence_lies_in_the_clip():
    for clip in CLIPS:
        for script, several in asked(*clip):
            for question in several:
                assert question.evidence
                assert all(0 <= start < end <= script.seconds for start, end in question.evidence)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].answers])
def test_every_answer_comes_equally_often(kind):
    answers = KINDS[kind].answers
    given = Counter(question.meaning for question in every_question() if question.kind == kind)
    assert set(given) == set(answers)
    assert chi_square([given[answer] for answer in answers]) < (2 if len(answers) > 5 else 4)


def test_letters_come_equally_often():
    letters = Counter(question.answer for question in every_question() if question.options)
    assert chi_square([letters[letter] for letter in LETTERS]) < 4


def test_no_option_gives_itself_away_by_being_offered():
    """Whoever reads the options only and always takes the likeliest is right once in four times."""
    for kind in ("heard_while_seen", "first_last_heard", "next_heard", "colour", "shape_while_heard"):
        offered, right = Counter(), Counter()
        for question in every_question():
            if question.kind == kind and question.options:
                offered.update(question.options)
                right[question.meaning] += 1
        assert all(abs(right[label] / offered[label] - 0.25) < 0.1 for label in offered), kind


def test_of_two_named_in_a_question_the_first_is_right_half_the_time():
    for kind in ("order_seen", "order_heard"):
        several = [q for q in every_question() if q.kind == kind]
        first = sum(q.text.split("the ")[1].startswith(q.answer) for q in several)
        assert abs(first / len(several) - 0.5) < 0.04


def test_sounds_tell_nothing_about_the_picture():
    scripts = [draw(seed, 8, 2) for seed in range(2000)]
    firsts = [
        (next((s.kind for s in script.sounds if s.scene == 0), "silence"), script.scenes[0].things[0].colour)
        for script in scripts
    ]
    together, kinds, colours = Counter(firsts), Counter(k for k, _ in firsts), Counter(c for _, c in firsts)
    expected = {pair: kinds[pair[0]] * colours[pair[1]] / len(firsts) for pair in product(kinds, colours)}
    chi = sum((together[pair] - count) ** 2 / count for pair, count in expected.items())
    assert chi / ((len(kinds) - 1) * (len(colours) - 1)) < 1.5


def test_chance_is_one_over_what_there_is_to_guess_from():
    assert chance("colour") == 1 / len(COLOURS)
    assert chance("seen") == 1 / (len(COLOURS) * len(SHAPES))
    assert chance("heard_while_seen") == 1 / (len(SOUNDS) + 1)
    assert chance("order_seen") == chance("is_heard") == chance("order_both") == 1 / 2
    assert chance("where_seen") == chance("count_heard") == 1 / 3
    assert chance("next_heard") == 1 / (len(SOUNDS) - 1)
    assert chance("description") == 0
    assert chance("colour", choices=True) == 1 / 4


def test_a_needed_modality_is_named():
    needs = {question.kind: question.modality for question in every_question()}
    assert needs["colour"] == needs["where_seen"] == "video"
    assert needs["word"] == needs["count_heard"] == "audio"
    assert {kind for kind, need in needs.items() if need == "both"} >= {"seen_while_heard", "heard_while_seen"}


def thing(colour, shape):
    return Thing(shape, colour, 0.5, 0.5, 0.2, "nowhere", 0.0, 2.0)


def clip(*sounds, looks=(("red", "circle"), ("blue", "star"))):
    scenes = [Scene(4.0 * k, 4.0 * k + 4, "black", 0.0, (thing(*look),), None) for k, look in enumerate(looks)]
    return Script(0, 4.0 * len(scenes), tuple(scenes), sounds, 0.001)


def sound(kind, start, end, word=""):
    return Sound(kind, start, end, int(start // 4), 0.3, 1000.0, word)


def kinds_of(script):
    return {question.kind for question in questions(script, rounds=8)}


def test_nobody_is_asked_what_is_shown_during_a_sound_of_two_scenes():
    assert "seen_while_heard" in kinds_of(clip(sound("bell", 1, 2)))
    assert "seen_while_heard" not in kinds_of(clip(sound("bell", 1, 2), sound("bell", 5, 6)))
    assert "seen_while_heard" not in kinds_of(clip(sound("bell", 3, 5)))


def test_nobody_is_asked_about_a_thing_that_comes_twice():
    twice = clip(sound("bell", 1, 2), looks=(("red", "circle"), ("red", "circle")))
    assert not kinds_of(twice) & {"heard_while_seen", "order_both", "next_seen", "where_seen"}


def test_nobody_is_asked_which_of_two_sounds_a_thing_has():
    both = clip(sound("bell", 1, 2), sound("beep", 1.5, 2.5))
    asked_of = [q.text for q in questions(both, rounds=8) if q.kind == "heard_while_seen"]
    assert asked_of
    assert all("blue star" in text for text in asked_of)


def test_the_description_goes_scene_by_scene():
    script = clip(sound("beep", 1, 2), sound("voice", 5, 5.5, "tiger"), looks=(("red", "circle"), ("blue", "star")))
    assert description(script) == "red circle, beep; blue star, voice says tiger"
    assert description(clip()) == "red circle, silence; blue star, silence"


def chi_square(counts):
    """By degree of freedom: about 1 if all are equally likely."""
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts) / (len(counts) - 1)
