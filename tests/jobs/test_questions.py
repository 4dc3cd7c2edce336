"""Which questions are asked about which clip, and by what id each is known."""

import json

import pytest

from omniqa.errors import UsageError
from omniqa.jobs.clips import ClipPath
from omniqa.jobs.questions import for_all, from_file, reads_like_question

CLIPS = [ClipPath("a.mp4", "a.mp4"), ClipPath("b.mp4", "b.mp4")]


@pytest.fixture
def write(tmp_path):
    def call(records, name="questions.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return call


def ids(tasks):
    return [id for task in tasks for id, _ in task.asked()]


def test_ids_depend_on_name_and_text_alone_and_are_all_different():
    tasks = for_all(CLIPS, ["What?", "Who?", "What?"])
    assert len(set(ids(tasks))) == 6
    assert ids(for_all(CLIPS[1:], ["Where?", "What?"]))[1] == ids(tasks)[3]
    assert ids(for_all([ClipPath("a.mp4", "elsewhere/a.mp4")], ["What?"])) == ids(tasks)[:1]


def test_ids_stay_as_they_are():
    """The same in every version: results of a year ago are gone on with."""
    assert ids(for_all(CLIPS[:1], ["What?", "What?"])) == ["bbbf8a4e5caa0afe", "08cc1ee8a3dac399"]


@pytest.mark.parametrize(
    ("argument", "question"),
    [
        ("What is seen?", True),
        ("What?", True),
        ("Describe the clip", True),
        ("Erzähle.", True),
        ("谁在说话\uff1f", True),
        ("من هو؟", True),
        ("Is 3/4 of it red?", True),
        ("Which is it: a.mp4 or b.mp4?", True),
        ("x" * 300 + " y", True),
        ("gone", False),
        ("gone.mp4", False),
        ("my gone clip.mp4", False),
        ("clips/my gone clip", False),
        ("my holiday clip", False),
        ("holidays?", False),
        ("there already?", False),
        ("https://example.org/what is seen?", False),
        ("", False),
        (" ", False),
    ],
)
def test_a_question_among_videos_is_told_from_a_mistyped_name(tmp_path, monkeypatch, argument, question):
    monkeypatch.chdir(tmp_path)
    for name in ("clips", "my holiday clips", "holidays"):
        (tmp_path / name).mkdir()
    (tmp_path / "there already?").touch()
    assert reads_like_question(argument) is question


def test_questions_that_name_their_videos(write, tmp_path):
    path = write(
        [
            {"video": "a.mp4", "question": "What?", "task": "seeing", "answer": "red"},
            {"video": "sub/b.mp4", "question": "Who?", "id": 17},
            {"video": "./a.mp4", "question": "Where?", "weights": [1, 2]},
        ]
    )
    first, second = from_file(path, [], None)
    assert first.clip == ClipPath("a.mp4", str(tmp_path / "a.mp4"))
    assert [(question.text, question.fields) for question in first.questions] == [
        ("What?", {"task": "seeing", "answer": "red"}),
        ("Where?", {"weights": [1, 2]}),
    ]
    assert ids([second]) == ["17"]
    (other, _) = from_file(path, CLIPS, "elsewhere")
    assert other.clip == ClipPath("a.mp4", "elsewhere/a.mp4")


def test_questions_that_name_no_video_are_about_all(write):
    tasks = from_file(write([{"question": "What?", "id": "q1"}, {"question": "Who?", "lang": "en"}]), CLIPS, None)
    assert [task.clip for task in tasks] == CLIPS
    assert [question.fields for question in tasks[1].questions] == [{}, {"lang": "en"}]
    assert len(set(ids(tasks))) == 4


def test_csv_with_fields(tmp_path):
    path = tmp_path / "questions.csv"
    path.write_text('video,question,task,id\na.mp4,"What, then?",seeing,\nb.mp4,Who?,,x\n')
    first, second = from_file(path, [], None)
    assert (first.questions[0].text, first.questions[0].fields) == ("What, then?", {"task": "seeing"})
    assert ids([second]) == ["x"]


@pytest.mark.parametrize(
    ("records", "clips", "message"),
    [
        ([{"question": "What?"}], [], "names no videos"),
        ([{"question": "What?", "video": "a.mp4"}, {"question": "Who?"}], [], "question 2, has no video"),
        ([{"question": "What?", "video": "a.mp4"}], CLIPS, "Leave out the others"),
        ([{"video": "a.mp4"}], [], "question 1, has no question"),
        ([{"question": " "}], CLIPS, "has no question"),
        ([{"question": 3}], CLIPS, "has no question"),
        ([["What?"]], CLIPS, "no object"),
        ([], CLIPS, "holds no questions"),
        ([{"video": "a", "question": "A?", "id": 1}, {"video": "b", "question": "B?", "id": "1"}], [], "Every id"),
    ],
)
def test_what_can_not_be_asked_is_refused_and_named(write, records, clips, message):
    with pytest.raises(UsageError, match=message):
        from_file(write(records), clips, None)


def test_other_files_and_empty_questions_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.jsonl"):
        from_file(tmp_path / "questions.txt", CLIPS, None)
    with pytest.raises(UsageError, match="empty"):
        for_all(CLIPS, ["What?", " "])
