"""Each published layout is read as it is published; the examples here are made up in its fields."""

import json
from dataclasses import replace

import pytest

from omniqa.errors import UsageError
from omniqa.eval import layouts
from omniqa.eval.questions import SetQuestion
from omniqa.eval.report import groupings
from omniqa.eval.scoring import score
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
        SetQuestion(0, "videos/abc-1.mp4", "What plays?", "B", OPTIONS,
                 by(domain="Music", task="Audio Recognition", task_domain="Recognition", duration="<1min",
                    audio_class="Music") | {"sub-category": "Concert"}, 0.25),
        SetQuestion(1, "videos/abc-1.mp4", "And then?", "D", OPTIONS,
                 by(domain="Music", task="Temporal Prediction", task_domain="Reasoning", duration="<1min",
                    audio_class="Music") | {"sub-category": "Concert"}, 0.25),
        SetQuestion(2, "videos/abc-2.mp4", "Who wins?", "A", OPTIONS[:3],
                 by(domain="Sports", task="Event Recognition", task_domain="Recognition", duration="1-2min"), 1 / 3),
    ],
    "videomme": [
        SetQuestion(0, "fFjv93ACGo8.mp4", "How many?", "C", OPTIONS,
                 by(domain="Knowledge", task="Counting Problem", duration="short")
                 | {"sub-category": "Humanity & History"}, 0.25)
    ],
    "avut": [
        SetQuestion(0, "data/-39HwxXLsAE.mp4", "Which?", "A", OPTIONS,
                 by(domain="vlog", task="Audio OCR Matching"), 0.25)
    ],
    "dailyomni": [
        SetQuestion(0, "G_VTkkb34gw/G_VTkkb34gw_video.mp4", "What happens as the horn sounds?", "D", OPTIONS,
                 by(domain="Sports", task="AV Event Alignment", duration="30s"), 0.25)
    ],
    "omnivideobench": [
        SetQuestion(0, "video_1.mp4", "What is meant?", "C", OPTIONS,
                 by(domain="Vlog", task="reference reasoning", audio="Speech", duration="1-5 min"), 0.25)
    ],
}  # fmt: skip


@pytest.mark.parametrize("layout", PUBLISHED)
def test_a_published_layout_is_recognised_and_read(tmp_path, layout):
    assert read(tmp_path, PUBLISHED[layout]) == EXPECTED[layout]
    assert read(tmp_path, PUBLISHED[layout], layout) == EXPECTED[layout]


@pytest.mark.parametrize(
    ("duration", "group"),
    [
        ("00:10", "0-1 min"), ("01:00", "0-1 min"), ("01:01", "1-5 min"), ("10:00", "5-10 min"), ("29:59", "10-30 min"),
        ("30:00", "10-30 min"), ("1:02:03", "over 30 min"), ("90:00", "over 30 min"), ("soon", None), (208, None),
        ("9" * 5000 + ":00", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_omnivideobench_is_grouped_by_its_clips_minutes(tmp_path, duration, group):
    (question,) = read(tmp_path, [OMNIVIDEOBENCH[0] | {"duration": duration}])
    assert question.groups.get("duration") == group


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
    SetQuestion(0, "a.mp4", "Which?", "B", OPTIONS, {"task": "seeing"}, 0.25),
    SetQuestion(1, "a.mp4", "How many?", "2", None, {"domain": "cats"}),
    SetQuestion(2, "b.mp4", "What?", "C", OPTIONS, {}, 0.25),
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
        assert question.evidence == original.evidence


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


AVUT_GAPS = AVUT[0] | {"option_B": "", "option_C": None, "option_E": "Rain", "option_F": "", "answer": "E"}


def test_empty_options_in_the_middle_shift_no_letter(tmp_path):
    (question,) = read(tmp_path, [AVUT_GAPS])
    assert question.options == ("A dog", "", "", "Nothing", "Rain")
    assert (question.answer, question.chance, question.fault) == ("E", 1 / 3, None)
    assert question.prompt() == "Which?\nA. A dog\nD. Nothing\nE. Rain\nAnswer with the letter."
    assert question.written == ("A. A dog", "B. ", "D. Nothing", "E. Rain", "F. "), "as OmniZip shows them"
    assert score(question, "E").correct
    assert score(question, "Rain").said == "E"
    assert score(question, "").said is None
    assert score(question, "B").said is None


@pytest.mark.parametrize("letter", ["B", "C", "F", "G"])
def test_a_record_whose_right_option_is_empty_is_at_fault_alone(tmp_path, letter):
    first, second = read(tmp_path, [AVUT_GAPS | {"answer": letter}, AVUT[0]])
    assert second == replace(EXPECTED["avut"][0], number=1)
    assert second.fault is None
    assert first.fault == f"set.json, line 1, question 1: the right option, {letter}, is empty."


@pytest.mark.parametrize(
    "options",
    [
        ["A. dog", "", "C. cat", "D. cow"],
        ["A. dog", None, "C. cat", "D. cow"],
        ["A. dog", "C. cat", "D. cow"],
        {"A": "dog", "C": "cat", "D": "cow"},
        {"a": "dog", "b": None, "c": "cat", "d": "cow"},
        "['A. dog' 'C. cat'\n 'D. cow']",
        "A. dog\nC. cat\nD. cow",
    ],
)
def test_letters_stay_with_their_options_in_every_form(tmp_path, options):
    (question,) = read(tmp_path, [{"video": "a", "question": "Which?", "answer": "D", "options": options}])
    assert (question.options, question.answer) == (("dog", "", "cat", "cow"), "D")


TEXTS = {
    "JSON": json.dumps(LETTERED),
    "Python": str(LETTERED),
    "NumPy": "['A. A dog' 'B. A cat'\n 'C. Two cats' 'D. Nothing']",
    "NumPy, named": "array(['A. A dog', 'B. A cat', 'C. Two cats',\n       'D. Nothing'], dtype=object)",
    "NumPy, with both quotation marks": "[\"A. A dog\" 'B. A cat' \"C. Two cats\" 'D. Nothing']",
    "NumPy, its line end written out": r"['A. A dog' 'B. A cat'\n 'C. Two cats' 'D. Nothing']",
    "quoted by CSV": '"[""A. A dog"", ""B. A cat"", ""C. Two cats"", ""D. Nothing""]"',
    "lines": "\n".join(LETTERED),
    "one line": " ".join(LETTERED),
    "one line with marks": "; ".join(LETTERED),
}


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize("layout", ["dailyomni", "worldsense", "videomme", "omnivideobench", "jsonl"])
def test_options_as_one_text_are_told_apart(tmp_path, layout, form):
    name = {"dailyomni": "Choice", "worldsense": "candidates"}.get(layout, "options")
    record = {**FLAT[layout], name: TEXTS[form]}
    (question,) = read(tmp_path, [record])
    assert question.options == OPTIONS
    assert question.lines == tuple(LETTERED)


WORLDSENSE_ROW = {
    "index": 3, "video": "abc-1", "video_path": "./videos/abc-1.mp4", "duration": "<1min", "domain": "Music",
    "sub_category": "Concert", "audio_class": ["Music", "Speech"], "task_domain": "Recognition",
    "task_type": "Audio Recognition", "question": "What plays?", "answer": "B", "candidates": LETTERED,
}  # fmt: skip
FLAT = {
    "dailyomni": DAILYOMNI[0],
    "worldsense": WORLDSENSE_ROW,
    "videomme": VIDEOMME[0],
    "omnivideobench": {
        "video": "video_1", "video_type": "Vlog", "duration": "03:28", "question": "What is meant?",
        "question_type": "reference reasoning", "audio_type": "Speech", "answer": "Two cats", "options": LETTERED,
        "correct_option": "C",
    },
    "jsonl": {"video": "a.mp4", "question": "Which?", "answer": "B", "options": LETTERED},
}  # fmt: skip


@pytest.mark.parametrize(
    ("held", "spans"),
    [
        ([[0, 1.5], [3, 4]], ((0.0, 1.5), (3.0, 4.0))),
        ("[[0, 1.5]]", ((0.0, 1.5),)),
        ("the red circle is seen", ()),
        (["frame 3"], ()),
        (None, ()),
        ([], ()),
    ],
)
def test_true_spans_are_read_and_other_evidence_is_left_alone(tmp_path, held, spans):
    record = {"video": "a.mp4", "question": "?", "answer": "x", "evidence": held}
    assert read(tmp_path, [record])[0].evidence == spans
    assert read(tmp_path, [record | {"options": ["x", "y"], "answer": "A"}])[0].evidence == spans


@pytest.mark.parametrize("held", [[[1, 0]], [[0, 1, 2]], [["a", "b"]], [[0, 1], 7], "[[0, 1", [[-1, 2]], [[0, 1e300]]])
def test_spans_that_make_no_sense_are_an_error(tmp_path, held):
    with pytest.raises(UsageError, match=r"'evidence' must be a list of \[start, end\]"):
        read(tmp_path, [{"video": "a.mp4", "question": "?", "answer": "x", "evidence": held}])


def test_rows_of_worldsense_are_choices_counted_by_what_people_report(tmp_path):
    (question,) = read(tmp_path, [WORLDSENSE_ROW])
    assert (question.clip, question.answer, question.options) == ("videos/abc-1.mp4", "B", OPTIONS)
    assert question.groups == {
        "domain": "Music", "task": "Audio Recognition", "task domain": "Recognition", "duration": "<1min",
        "audio class": ("Music", "Speech"), "sub-category": "Concert",
    }  # fmt: skip
    assert groupings([question, replace(question, groups={"audio class": "Event"})])["audio class"].keys() == {
        "Music", "Speech", "Event",
    }  # fmt: skip


COLUMNS = {f"{letter}": option for letter, option in zip("ABCD", OPTIONS, strict=True)}


@pytest.mark.parametrize(
    "columns",
    [
        COLUMNS,
        {f"option_{letter}": option for letter, option in COLUMNS.items()},
        {f"candidate {letter.lower()}": option for letter, option in COLUMNS.items()},
        {f"candidates_{number}": option for number, option in enumerate(OPTIONS)},
        {f"choice{number}": option for number, option in enumerate(LETTERED, start=1)},
    ],
)
def test_rows_of_worldsense_may_hold_candidates_in_columns(tmp_path, columns):
    row = {name: value for name, value in WORLDSENSE_ROW.items() if name != "candidates"} | columns
    (question,) = read(tmp_path, [row])
    assert (question.options, question.clip) == (OPTIONS, "videos/abc-1.mp4")
    assert "task domain" in question.groups


def test_a_table_of_vlmevalkit_is_read(tmp_path):
    path = tmp_path / "WorldSense.tsv"
    cells = [str(value) for value in WORLDSENSE_ROW.values()]
    path.write_text("\t".join(WORLDSENSE_ROW) + "\n" + "\t".join(cells) + "\n")
    (question,) = layouts.read(files.load(path), "auto", path)
    assert (question.options, question.answer, question.groups["audio class"]) == (OPTIONS, "B", ("Music", "Speech"))
    assert layouts.find(files.load(path), "auto", path) == "worldsense"


def test_a_table_of_vlmevalkit_for_videomme_is_told_from_worldsense(tmp_path):
    row = {name: value for name, value in WORLDSENSE_ROW.items() if name not in ("task_domain", "audio_class")}
    path = tmp_path / "Video-MME.json"
    path.write_text(json.dumps([row | {"duration": "medium"}]))
    assert layouts.find(files.load(path), "auto", path) == "videomme"
    assert layouts.read(files.load(path), "auto", path)[0].clip == "abc-1.mp4"


@pytest.mark.parametrize("layout", ["omnivideobench", "videomme", "worldsense", "dailyomni"])
def test_flat_parquet_is_read(tmp_path, layout):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([FLAT[layout]]), path)
    (question,) = layouts.read(files.load(path), "auto", path)
    assert layouts.find(files.load(path), "auto", path) == layout
    assert question.options == OPTIONS
    assert score(question, f"The answer is {question.answer}.").correct


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"candidates": "dog or cat"}, "'candidates' must be a list"),
        ({"options": LETTERED, "candidates": LETTERED[:3]}, "different options"),
        ({"options": LETTERED, "A": "one", "B": "two"}, "different options"),
        ({"choices": {"x": "dog", "y": "cat"}}, "'choices' must be a list"),
        ({"Options": ["A. dog"]}, "'Options' must be a list"),
    ],
)
@pytest.mark.parametrize("layout", ["auto", "jsonl"])
def test_options_that_can_not_be_read_are_an_error(tmp_path, fields, reason, layout):
    with pytest.raises(UsageError, match=reason):
        read(tmp_path, [{"video": "a.mp4", "question": "Which?", "answer": "A", **fields}], layout)


@pytest.mark.parametrize("name", ["candidates", "choices", "Options"])
def test_options_by_another_name_are_never_an_open_question(tmp_path, name):
    (question,) = read(tmp_path, [{"video": "a.mp4", "question": "Which?", "answer": "B", name: LETTERED}])
    assert question.options == OPTIONS


@pytest.mark.parametrize("options", [LETTERED, TEXTS["NumPy"], COLUMNS])
def test_lettered_options_are_found_by_any_name(tmp_path, options):
    (question,) = read(tmp_path, [{"video": "a.mp4", "question": "Which?", "answer": "B", "mcq": options}])
    assert question.options == OPTIONS


def test_options_within_the_question_are_an_error(tmp_path):
    asked = "Which?\n" + "\n".join(LETTERED)
    with pytest.raises(UsageError, match="'question' holds options"):
        read(tmp_path, [{"video": "a.mp4", "question": asked, "answer": "B"}])


def test_avut_as_a_table_without_its_first_option_keeps_its_letters(tmp_path):
    path = tmp_path / "avut.csv"
    path.write_text("video_path,question,option_A,option_B,option_C,option_D,answer\na.mp4,Which?,,dog,,cat,D\n")
    (question,) = layouts.read(files.load(path), "auto", path)
    assert (question.options, question.answer) == (("", "dog", "", "cat"), "D")


def test_fields_that_only_look_like_options_are_left_alone(tmp_path):
    fields = {"choice": "B", "option": 3, "Q": "?", "A": "!", "scores": {"A": 0.5, "B": 0.5}, "tags": ["A-roll", "b"]}
    (question,) = read(tmp_path, [{"video": "a.mp4", "question": "Which?", "answer": "a dog", **fields}])
    assert question.options is None


def test_a_task_of_worldsense_that_is_no_object_is_named(tmp_path):
    with pytest.raises(UsageError, match="question 1 is no object"):
        read(tmp_path, {"abc": WORLDSENSE["abc-1"] | {"task0": "What plays?"}}, "worldsense")
