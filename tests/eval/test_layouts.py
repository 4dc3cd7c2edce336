"""Each published layout is read as it is published; the examples here are made up in its fields."""

import json

import pytest

from omniqa.errors import UsageError
from omniqa.eval import layouts
from omniqa.eval.questions import Question
from omniqa.jobs import question_files as files

OPTIONS = ("A dog", "A cat", "Two cats", "Nothing")
LETTERED = [f"{letter}. {option}" for letter, option in zip("ABCD", OPTIONS, strict=True)]

WORLDSENSE = {
    "abc-1": {
        "duration": "<1min",
        "domain": "Music",
        "sub_category": "Concert",
        "audio_class": ["Music"],
        "video_caption": "…",
        "task0": {
            "question": "What plays?",
            "answer": "B",
            "candidates": LETTERED,
            "task_domain": "Recognition",
            "task_type": "Audio Recognition",
        },
        "task1": {
            "question": "And then?",
            "answer": "D",
            "candidates": LETTERED,
            "task_domain": "Reasoning",
            "task_type": "Temporal Prediction",
        },
    },
    "abc-2": {
        "duration": "1-2min",
        "domain": "Sports",
        "task0": {
            "question": "Who wins?",
            "answer": "A",
            "candidates": LETTERED[:3],
            "task_domain": "Recognition",
            "task_type": "Event Recognition",
        },
    },
}
VIDEOMME = [
    {
        "video_id": "001",
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Humanity & History",
        "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
        "videoID": "fFjv93ACGo8",
        "question_id": "001-1",
        "task_type": "Counting Problem",
        "question": "How many?",
        "options": LETTERED,
        "answer": "C",
    }
]
AVUT = [
    {
        "video_id": 17,
        "url": "https://www.youtube.com/watch?v=-39HwxXLsAE",
        "video_type": "vlog",
        "task_type": "Audio OCR Matching",
        "question": "Which?",
        **{f"option_{letter}": option for letter, option in zip("ABCD", OPTIONS, strict=True)},
        "answer": "A",
        "video_path": "data/-39HwxXLsAE.mp4",
        "QA_id": 5,
    }
]
DAILYOMNI = [
    {
        "Question": "What happens as the horn sounds?",
        "Choice": LETTERED,
        "Answer": "D",
        "video_id": "G_VTkkb34gw",
        "Type": "AV Event Alignment",
        "content_parent_category": "Sports",
        "video_category": "Sports",
        "video_duration": "30s",
    }
]
OMNIVIDEOBENCH = [
    {
        "video": "video_1",
        "video_type": "Vlog",
        "duration": "03:28",
        "questions": [
            {
                "question": "What is meant?",
                "question_type": "reference reasoning",
                "audio_type": "Speech",
                "reasoning_steps": [],
                "answer": "Two cats",
                "options": [f"{letter}.{option}" for letter, option in zip("ABCD", OPTIONS, strict=True)],
                "correct_option": "C",
            }
        ],
    },
    {"video": "video_2", "video_type": "Documentary", "duration": "00:10", "questions": []},
]
PUBLISHED = {
    "worldsense": WORLDSENSE,
    "videomme": VIDEOMME,
    "avut": AVUT,
    "dailyomni": DAILYOMNI,
    "omnivideobench": OMNIVIDEOBENCH,
}


def read(tmp_path, content, layout="auto"):
    path = tmp_path / "set.json"
    path.write_text(json.dumps(content))
    return layouts.read(files.load(path), layout, path)


def by(**groups):
    return {name.replace("_", " "): group for name, group in groups.items()}


EXPECTED = {
    "worldsense": [
        Question(0, "videos/abc-1.mp4", "What plays?", "B", OPTIONS,
                 by(domain="Music", task="Audio Recognition", task_domain="Recognition"), 0.25),
        Question(1, "videos/abc-1.mp4", "And then?", "D", OPTIONS,
                 by(domain="Music", task="Temporal Prediction", task_domain="Reasoning"), 0.25),
        Question(2, "videos/abc-2.mp4", "Who wins?", "A", OPTIONS[:3],
                 by(domain="Sports", task="Event Recognition", task_domain="Recognition"), 1 / 3),
    ],
    "videomme": [
        Question(0, "fFjv93ACGo8.mp4", "How many?", "C", OPTIONS,
                 by(domain="Knowledge", task="Counting Problem", duration="short"), 0.25)
    ],
    "avut": [
        Question(0, "data/-39HwxXLsAE.mp4", "Which?", "A", OPTIONS,
                 by(domain="vlog", task="Audio OCR Matching"), 0.25)
    ],
    "dailyomni": [
        Question(0, "G_VTkkb34gw/G_VTkkb34gw_video.mp4", "What happens as the horn sounds?", "D", OPTIONS,
                 by(domain="Sports", task="AV Event Alignment", duration="30s"), 0.25)
    ],
    "omnivideobench": [
        Question(0, "video_1.mp4", "What is meant?", "C", OPTIONS,
                 by(domain="Vlog", task="reference reasoning", audio="Speech"), 0.25)
    ],
}  # fmt: skip


@pytest.mark.parametrize("layout", PUBLISHED)
def test_a_published_layout_is_recognised_and_read(tmp_path, layout):
    assert read(tmp_path, PUBLISHED[layout]) == EXPECTED[layout]
    assert read(tmp_path, PUBLISHED[layout], layout) == EXPECTED[layout]


@pytest.mark.parametrize("layout", PUBLISHED)
def test_another_layouts_file_is_refused(tmp_path, layout):
    for other in PUBLISHED.keys() - {layout}:
        with pytest.raises(UsageError):
            read(tmp_path, PUBLISHED[other], layout)


PLAIN = [
    {"video": "a.mp4", "question": "Which?", "answer": "B", "options": list(OPTIONS), "task": "seeing"},
    {"video": "a.mp4", "question": "How many?", "answer": 2, "domain": "cats"},
    {"video": "b.mp4", "question": "What?", "answer": "Two cats", "options": LETTERED},
]
PLAIN_READ = [
    Question(0, "a.mp4", "Which?", "B", OPTIONS, {"task": "seeing"}, 0.25),
    Question(1, "a.mp4", "How many?", "2", None, {"domain": "cats"}),
    Question(2, "b.mp4", "What?", "C", OPTIONS, {}, 0.25),
]


def test_plain_json_lines(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in PLAIN) + "\n\n")
    assert layouts.read(files.load(path), "auto", path) == PLAIN_READ


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_tables_hold_options_as_json_or_as_python_writes_them(tmp_path, suffix, delimiter):
    path = tmp_path / f"set{suffix}"
    quoted = [json.dumps(list(OPTIONS)), "", str(LETTERED)]
    rows = [
        [line["video"], line["question"], str(line["answer"]), options, line.get("domain", ""), line.get("task", "")]
        for line, options in zip(PLAIN, quoted, strict=True)
    ]
    rows.insert(0, ["video", "question", "answer", "options", "domain", "task"])
    cells = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
    path.write_text("\ufeff" + "\n".join(delimiter.join(row) for row in cells) + "\n")
    assert layouts.read(files.load(path), "auto", path) == PLAIN_READ


def test_parquet_is_read_where_pyarrow_is(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path = tmp_path / "test-00000-of-00001.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(VIDEOMME), path)
    assert layouts.read(files.load(path), "auto", path) == EXPECTED["videomme"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "set.parquet").touch()
    with pytest.raises(UsageError, match="pip install pyarrow"):
        files.load(tmp_path / "set.parquet")


def test_what_nano_make_clips_writes_is_read_with_its_chance(tmp_path):
    from omniqa.nano import world
    from omniqa.nano.clips import _as_dict

    asked = world.questions(world.draw(7))
    lines = [json.dumps(_as_dict("clip.mp4", question)) for question in asked]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(lines))
    for question, original in zip(layouts.read(files.load(path), "auto", path), asked, strict=True):
        assert question.prompt() == original.prompt
        assert question.answer == original.answer
        assert question.chance == world.chance(original.kind, original.options is not None)
        assert question.groups["modality"] == original.modality


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"question": "Which?", "answer": "B"}, "question 2: 'video'"),
        ({"video": "a", "question": " ", "answer": "B"}, "question 2: 'question'"),
        ({"video": "a", "question": "Which?", "answer": None}, "question 2: 'answer'"),
        ({"video": "a", "question": "Which?", "answer": "E", "options": list(OPTIONS)}, "one of A, B, C, D"),
        ({"video": "a", "question": "Which?", "answer": "A", "options": ["only"]}, "2 to 26"),
        ({"video": "a", "question": "Which?", "answer": "A", "options": "maybe"}, "2 to 26"),
        ("Which?", "no object"),
    ],
)
def test_a_broken_record_is_named(tmp_path, line, reason):
    with pytest.raises(UsageError, match=reason):
        read(tmp_path, [PLAIN[0], line])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("set.json", "{", "can't be read"),
        ("set.jsonl", '{"video": "a"}\nno json\n', "line 2"),
        ("set.json", "[]", "none of the layouts"),
        ("set.json", '[{"what": "is this"}]', "docs/eval.md"),
        ("set.json", "3", "none of the layouts"),
        ("set.mp4", "", "ends in .json"),
    ],
)
def test_a_file_of_no_use_is_refused(tmp_path, name, text, reason):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError, match=reason):
        layouts.read(files.load(path), "auto", path)


def test_a_missing_file_and_an_unknown_format_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.jsonl"):
        files.load(tmp_path / "nowhere.jsonl")
    with pytest.raises(UsageError, match="worldsense, omnivideobench"):
        read(tmp_path, PLAIN, "mmlu")


def test_letters_in_front_go_only_where_every_option_has_its_own(tmp_path):
    initials = ["A. Smith", "C. Jones", "B. Brown", "D. White"]
    (question,) = read(tmp_path, [{"video": "a", "question": "Who?", "answer": "B. Brown", "options": initials}])
    assert question.options == tuple(initials)
    assert question.answer == "C"


def test_an_answer_of_one_letter_is_the_letter_also_where_options_are_letters(tmp_path):
    (question,) = read(tmp_path, [{"video": "a", "question": "Who?", "answer": "C", "options": ["T", "A", "X", "C"]}])
    assert question.answer == "C"
