"""The real lmms-eval runs a task on clips of nano's world, and gets what `ask` answers."""

import json

import pytest

pytest.importorskip("lmms_eval.evaluator", reason="lmms-eval is not installed", exc_type=ImportError)

from lmms_eval import models
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

import omniqa
from omniqa.errors import UsageError
from omniqa.eval.questions import SetQuestion
from omniqa.integrations.lmms_eval import OmniqaModel, _decoding
from omniqa.nano import clips, world

TASK = """
task: nano_local
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
process_results: !function utils.results
generation_kwargs:
  max_new_tokens: 4
  do_sample: false
  until: ["\\n"]
metric_list:
  - metric: right
    aggregation: mean
    higher_is_better: true
metadata:
  - version: 0.0
"""
UTILS = """
def visual(doc):
    return [doc["video"]]

def text(doc, kwargs=None):
    return doc["text"]

def results(doc, answers):
    return {"right": float(answers[0].strip()[:1] == doc["answer"])}
"""


@pytest.fixture
def task(tmp_path):
    """A folder with a task of multiple-choice questions about two clips; and the questions."""
    for _ in clips.make_clips(tmp_path / "clips", world.test_scripts(2, 4, 1), 112):
        pass
    rows = [json.loads(line) for line in (tmp_path / "clips" / clips.QUESTIONS).read_text().splitlines()]
    asked = [
        {
            "video": str(tmp_path / "clips" / row["video"]),
            "text": SetQuestion(0, "", row["question"], "", tuple(row["options"])).prompt(),
            "answer": row["answer"],
        }
        for row in rows
        if row.get("options")
    ][:4]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, asked)))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "nano_local.yaml").write_text(TASK.format(questions=tmp_path / "questions.jsonl"))
    (folder / "utils.py").write_text(UTILS)
    return folder, asked


def test_the_entry_point_is_found_by_lmms_eval():
    assert models.get_model("omniqa") is OmniqaModel


def test_a_task_gets_the_answers_that_ask_gives(task, monkeypatch, tmp_path):
    folder, asked = task
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    made = simple_evaluate(
        model="omniqa",
        model_args="pretrained=nano,method=omnidrop,retention=0.5,device=cpu,max_num_frames=8",
        tasks=["nano_local"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=1,
        log_samples=True,
    )
    qa, options = omniqa.load("nano", device="cpu"), omniqa.ClipOptions(max_frames=8)
    decoding = omniqa.GenerationOptions(4)
    expected = [
        qa.ask(row["video"], row["text"], "omnidrop", 0.5, sampling=options, decoding=decoding).text.partition("\n")[0]
        for row in asked
    ]
    samples = sorted(made["samples"]["nano_local"], key=lambda sample: sample["doc_id"])
    assert [sample["resps"][0][0] for sample in samples] == expected
    right = sum(said.strip()[:1] == row["answer"] for said, row in zip(expected, asked, strict=True))
    (share,) = [value for name, value in made["results"]["nano_local"].items() if name.startswith("right,")]
    assert share == right / len(asked)
    assert all(said[:1] in "ABCDEFGHIJKL" for said in expected), "nano answers with letters"


def test_generation_options_of_a_task_are_taken():
    assert _decoding({"max_new_tokens": 16, "temperature": 0, "top_p": 0.9}) == omniqa.GenerationOptions(16)
    assert _decoding({"do_sample": False, "temperature": 1}).temperature == 0
    assert _decoding({"temperature": 0.5, "top_p": 0.9}).top_p == 0.9
    with pytest.raises(UsageError, match="num_beams is 4"):
        _decoding({"num_beams": 4})
