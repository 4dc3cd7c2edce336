"""Prompts and letters of the harnesses, to the character."""

import json

import pytest

from omniqa.errors import UsageError
from omniqa.eval import presets
from omniqa.eval.harness_letters import RULES
from omniqa.eval.prompts import PromptStyle
from omniqa.eval.protocol import Protocol
from omniqa.eval.questions import SetQuestion
from omniqa.eval.scoring import Scorer
from omniqa.media.sampling import ClipOptions
from omniqa.media.timeline import sample_times
from omniqa.models.base import STANDARD
from omniqa.pipeline.token_estimate import tokens_of
from omniqa.runtime.generation_options import GenerationOptions
from tests.conftest import ROOT

LETTERS = ROOT.parent / "shared" / "harness_letters.jsonl"
FOUR = ("a red hat", "the small bird", "two men", "nothing")
BY_LETTER = "Answer with the option's letter from the given choices directly."
ANALYZE = "{own} Please analyze the video carefully and select the most appropriate answer from the given options."
WATCH = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, select the best option "
    "that accurately addresses the question."
)
SELECT = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option.\n"
)
ASKED = "Q?\nA. o1\nB. o2\nC. o3\nD. o4"
VIDEOMME = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. Respond "
    f"with only the letter (A, B, C, or D) of the correct option.\n{ASKED}\n\n{BY_LETTER}"
)
TEXTS = {  # in front of the media, behind them, the system message
    ("lmms-eval", "videomme"): ("", VIDEOMME, "{own}"),
    ("lmms-eval", "worldsense"): (
        "", f"{WATCH}\nThese are the frames of a video and the corresponding audio. {SELECT}{ASKED}\n", "{own}",
    ),
    ("vlmevalkit", "videomme"): (
        "", f"\nThese are the frames of a video. {SELECT}Question: {ASKED}\nAnswer: ", None,
    ),
    ("vlmevalkit", "worldsense"): (
        WATCH,
        f"\nThese are the frames of a video and the corresponding audio. {SELECT}Question: {ASKED}\nAnswer: ",
        None,
    ),
    ("omnizip", "avut"): ("", f"Q?\nOptions:\nA. o1\nB. o2\nC. o3\nD. o4\n{BY_LETTER}", ANALYZE),
    ("omnizip", "worldsense"): ("", f"Q?\nOptions:\nA. o1\nB. o2\nC. o3\nD. o4\n{BY_LETTER}", ANALYZE),
    ("seats", "videomme"): ("", VIDEOMME, ""),
    ("seats", "worldsense"): ("", f"Q?\nOptions:\nA. o1\nB. o2\nC. o3\nD. o4\n{BY_LETTER}", ANALYZE),
    ("seats", "dailyomni"): (
        "",
        "Your task is to accurately answer multiple-choice questions based on the given video.\n"
        "Select the single most accurate answer from the given choices.\nQuestion: Q?\n"
        "Choices: A. o1\nB. o2\nC. o3\nD. o4\nYour answer should be a capital letter representing your choice: A, B, "
        "C, or D. Don't generate any other text.\n",
        ANALYZE,
    ),
    ("seats", "omnivideobench"): (
        "",
        "You are given a video. Based on the content of the video, answer the following question:\n\nQuestion:\nQ?\n\n"
        "Options:\nA. o1\nB. o2\nC. o3\nD. o4\n\nAnswer with the option's letter directly(e.g., A, B, C, or D).If your "
        "access to the video content is limited, at least one option that is more likely than the others must be "
        "chosen.Mustn't give any other reason for can not choose!",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("harness", "layout"), TEXTS)
def test_a_question_is_put_in_the_harnesss_own_words(harness, layout):
    question = SetQuestion(0, "clip", "Q?", "A", ("o1", "o2", "o3", "o4"))
    put = PromptStyle(harness, layout).prompt(question)
    assert (put.before_media, put.question, put.system) == TEXTS[harness, layout]


def test_vlmevalkit_names_no_sound_where_none_is_taken():
    question = SetQuestion(0, "clip", "Q?", "A", ("o1", "o2", "o3", "o4"))
    put = PromptStyle("vlmevalkit", "worldsense", sound=False).prompt(question)
    assert put.question == f"\nThese are the frames of a video. {SELECT}Question: {ASKED}\nAnswer: "


def test_options_stand_as_the_set_writes_them_also_empty_ones():
    question = SetQuestion(0, "clip", "Q?", "A", ("o1", "", "o3"), written=("A.o1", "B. ", "C.o3"))
    assert "Options:\nA.o1\nB. \nC.o3\nAnswer" in PromptStyle("omnizip", "avut").prompt(question).question
    assert question.prompt() == "Q?\nA. o1\nC. o3\nAnswer with the letter."


def test_sets_that_a_harness_does_not_know_get_its_first_text_and_say_so():
    assert Protocol("seats", "lmms-eval", "avut").names == {
        "prompt": "seats", "prompt_task": "videomme", "scoring": "lmms-eval", "scoring_task": "videomme"
    }  # fmt: skip
    assert Protocol("lmms-eval", "lmms-eval", "worldsense").names["scoring_task"] == "worldsense"
    assert Protocol().names == {"prompt": "omniqa", "prompt_task": "", "scoring": "strict", "scoring_task": ""}


def test_open_questions_are_put_as_they_are():
    question = SetQuestion(0, "clip", "Q?", "yes")
    assert PromptStyle("seats", "nano", "Briefly.").prompt(question) == "Q?\nBriefly."
    assert Scorer("omnizip", "nano").score(question, "Yes.").correct


@pytest.mark.parametrize("make", [lambda: PromptStyle("lmms"), lambda: Scorer("loose"), lambda: Scorer("seats")])
def test_names_that_do_not_exist_are_refused(make):
    with pytest.raises(UsageError, match="use "):
        make()


# lmms-eval's Video-MME and WorldSense, VLMEvalKit's, OmniZip's; "" is: never right.
CASES = [
    ("C", FOUR, "C", "C", "C", "C"),
    ("c.", FOUR, "", "A", "", "C"),
    ("(D)", FOUR, "D", "D", "D", ""),
    ("D is what one sees, not B", FOUR, "D", "B", "D", "D"),
    ("Hmm, D) or (B) then", FOUR, "B", "B", "D", ""),
    ("(A)? It is more like (C) to me", FOUR, "C", "C", "A", ""),
    ("It is C, or maybe D then", FOUR, "D", "C", "C", ""),
    ("I say (B), but the answer is D I think", FOUR, "D", "B", "B", ""),
    ("Answer: D", FOUR, "D", "A", "D", "A"),
    ("The best option is C", FOUR, "C", "C", "C", ""),
    ("Best answer: C", FOUR, "C", "B", "B", "B"),
    ("one can see the small bird up there", FOUR, "", "B", "", ""),
    ("first a red hat and then two men come", FOUR, "", "C", "", "F"),
    ("the small bird", FOUR, "", "A", "", ""),
    ("F", FOUR, "", "A", "", "F"),
    ("D", FOUR[:3], "D", "A", "D", "D"),
    ("", FOUR, "", "A", "", ""),
]


@pytest.mark.parametrize(("answer", "options", "videomme", "worldsense", "vlmevalkit", "omnizip"), CASES)
def test_each_harness_takes_its_own_letter(answer, options, videomme, worldsense, vlmevalkit, omnizip):
    assert (RULES["lmms-eval"]["videomme"](answer, options) or "") == videomme
    assert (RULES["lmms-eval"]["worldsense"](answer, options) or "") == worldsense
    assert (RULES["vlmevalkit"]["videomme"](answer, options) or "") == vlmevalkit
    assert (RULES["omnizip"]["avut"](answer, options) or "") == omnizip


@pytest.mark.skipif(not LETTERS.is_file(), reason=f"{LETTERS.name} is not beside the checkout")
def test_letters_equal_those_that_the_harnesses_functions_gave():
    rows = [json.loads(line) for line in LETTERS.read_text(encoding="utf-8").splitlines()]
    assert len(rows) > 80
    rules = {
        "lmms-eval/videomme": RULES["lmms-eval"]["videomme"],
        "lmms-eval/worldsense": RULES["lmms-eval"]["worldsense"],
        "vlmevalkit": RULES["vlmevalkit"]["videomme"],
        "omnizip/avut": RULES["omnizip"]["avut"],
    }
    differing = [
        (name, row["answer"], row[name], letter)
        for row in rows
        for name, rule in rules.items()
        if (letter := rule(row["answer"], tuple(row["options"])) or "") != row[name]
    ]
    assert not differing


def test_a_scorer_asks_the_rule_of_its_set():
    question = SetQuestion(0, "clip", "Q?", "A", FOUR)
    said = "nothing to be seen there"
    scores = {
        layout: Scorer("lmms-eval", layout).score(question, said).correct for layout in ("worldsense", "videomme")
    }
    assert scores == {"worldsense": True, "videomme": False}
    assert not Scorer("strict", "worldsense").score(question, said).correct


TOKEN = 28 * 28


@pytest.mark.parametrize(
    ("frames", "most"),
    [(2, 144 * TOKEN), (341, 144 * TOKEN), (366, 105_369), (768, 105_369)],  # 134.4 · 28² from 366 on
)
def test_seats_bounds_all_frames_of_a_clip_together(frames, most):
    options = presets.find("seats", "videomme").sampling(ClipOptions(), ())
    low, high = options.pixels_of(frames, STANDARD.pixel_bounds)
    assert (low, high) == (128 * TOKEN, pytest.approx(most, rel=0.005))


def test_frames_get_fewer_pixels_where_there_are_more_of_them():
    options = ClipOptions(total_pixels=24_576 * TOKEN)
    sizes = [options.frame_size(1080, 1920, frames=frames) for frames in (2, 64, 128, 368)]
    areas = [height * width // TOKEN for height, width in sizes]
    assert areas == sorted(areas, reverse=True)
    for area, frames in zip(areas, (2, 64, 128, 368), strict=True):
        assert area <= max(24_576 / (frames / 2), 1.05 * 128)
    assert ClipOptions().frame_size(1080, 1920, frames=368) == sizes[0]
    assert tokens_of((1080, 1920), 64, 0, options).n_video < tokens_of((1080, 1920), 64, 0, ClipOptions()).n_video


@pytest.mark.parametrize(
    ("name", "layout", "fps", "frames", "pixels", "length"),
    [
        ("lmms-eval", "videomme", 2, 768, (128, 768), 16),
        ("lmms-eval", "worldsense", 2, 768, (128, 768), 1024),
        ("omnizip", "avut", 2, 768, (128, 768), 100),
        ("omnizip-paper", "avut", 2, 768, (128, 128), 100),
        ("seats", "worldsense", 2, 128, (128, 144), 1024),
        ("seats", "dailyomni", 2, 128, (128, 144), 32),
        ("seats", "omnivideobench", 2, 256, (128, 144), 32),
        ("seats", "videomme", 2, 768, (128, 144), 16),
        ("vlmevalkit-1fps", "worldsense", 1, 768, (128, 768), 2048),
        ("vlmevalkit-0.5fps", "videomme", 0.5, 768, (128, 768), 2048),
    ],
)
def test_a_preset_has_the_harnesss_numbers(name, layout, fps, frames, pixels, length):
    preset = presets.find(name, layout)
    assert (preset.fps, preset.max_frames, preset.max_new_tokens) == (fps, frames, length)
    assert (preset.min_pixels, preset.max_pixels) == tuple(TOKEN * count for count in pixels)


@pytest.mark.parametrize("seconds", [1, 30, 3600])
def test_a_preset_of_so_many_frames_takes_as_many_of_any_clip(seconds):
    options = presets.find("vlmevalkit-8frame", "videomme").sampling(ClipOptions(), ())
    assert len(sample_times(0, seconds, options.fps, options.max_frames)) == 8


def test_options_that_are_given_win_over_a_preset():
    preset = presets.find("seats", "worldsense")
    assert preset.sampling(ClipOptions(fps=1), {"fps"}).fps == 1
    assert preset.sampling(ClipOptions(fps=1), ()).fps == 2
    assert preset.decoding(GenerationOptions(7), {"max_new_tokens"}).max_new_tokens == 7
    assert preset.decoding(GenerationOptions(7), ()).max_new_tokens == 1024
    with pytest.raises(UsageError, match="use lmms-eval"):
        presets.find("seats2", "worldsense")
