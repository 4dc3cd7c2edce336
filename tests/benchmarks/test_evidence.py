"""The rules for evidence are compared on what nano attended to, and a region's hits are counted by hand."""

import numpy as np
import pytest

from benchmarks import evidence, retained_by_task
from omniqa.eval.nano import NanoClips
from omniqa.nano import world
from omniqa.pipeline.load import load
from omniqa.pruning import registry

CLIPS = NanoClips(seconds=4, scenes=2)


@pytest.fixture(scope="module")
def qa():
    return load("nano", "cpu")


@pytest.fixture(scope="module")
def asked(qa):
    return list(evidence.gather(qa, CLIPS, [1], registry.resolve("omnidrop")))


def test_the_rules_are_those_of_the_answers_evidence(qa, asked):
    method = registry.resolve("omnidrop")
    encoded, script = qa.encode(CLIPS.source("1", qa.pixels), method=method), CLIPS.script(1)
    answers = [answer for _, answer in evidence.right_answers(qa, encoded, script, method)]
    assert len(answers) == len(asked) > 0
    for one, answer in zip(asked, answers, strict=True):
        by_time = sorted(answer.chunks, key=lambda chunk: chunk.start_s)
        assert [(chunk.start_s, chunk.end_s) for chunk in by_time] == [*one.chunks]
        np.testing.assert_allclose(one.drawn.surplus, [(chunk.video, chunk.audio) for chunk in by_time], atol=1e-4)
        video, audio = evidence.POINTERS["share of attention / first row's behind the media"](one)
        assert (video, audio) == pytest.approx((answer.gain.video, answer.gain.audio), rel=1e-3)


def test_tables_have_a_row_for_each_rule_layer_and_third(asked, capsys):
    evidence.show(asked)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    layers = len(asked[0].drawn.asked)
    assert len(rows) == 2 + len(evidence.RULES) + layers + 3 + len(evidence.POINTERS)


def test_a_regions_chance_is_the_mean_over_its_places():
    points = np.array([(5.0, 5.0), (15.0, 5.0)])
    assert evidence.holds((0, 0, 10, 10), points) == 0.5
    assert evidence.holds_anywhere((0, 0, 10, 10), points, (20, 20), (10, 10)) == pytest.approx(1 / 4)
    assert evidence.holds_anywhere((0, 0, 20, 20), points, (20, 20), (10, 10)) == 1


def test_the_asked_shape_is_the_one_that_question_and_answer_name():
    script = CLIPS.script(1)
    for question in world.questions(script):
        found = len(question.evidence) == 1 and evidence.asked_shape(script, question)
        if found:
            scene, thing = found
            assert question.evidence == ((scene.start, scene.end),)
            assert set(thing.label.split()) <= set(
                f"{question.text} {question.meaning}".lower().replace("?", "").split()
            )


def test_retained_shares_by_task_start_alike_and_end_with_less(qa, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(retained_by_task, "load", lambda *arguments: qa)
    retained_by_task.main(["--clips", "3", "--seconds", "4", "--plot", str(tmp_path / "plot.svg")])
    assert capsys.readouterr().out.count("| audio |") == 3
    assert "questions of hearing" in (tmp_path / "plot.svg").read_text()
    found = retained_by_task.measure(qa, CLIPS, range(3), registry.resolve("omnidrop", 0.3))
    for shares in found.values():
        first = [shares.mean(task)[0] for task in shares.by_task]
        assert first == pytest.approx([first[0]] * 3)  # what enters layer 0 does not depend on the question
        assert all((np.diff(shares.mean(task)) <= 1e-9).all() for task in shares.by_task)
