"""docs/nano.md tells what the world holds."""

import re

from omniqa.nano.kinds import KINDS
from omniqa.nano.scenes import BACKGROUNDS, COLOURS, LETTERS, SHAPES, SOUNDS
from omniqa.nano.words import WORDS
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "nano.md").read_text()


def test_every_kind_of_question_is_listed_with_its_chance():
    rows = re.findall(r"^\| ([\w ]+) \| `(\w+)` \| (\w+) \| .* \| (?:1/)?(\d+) \| (1/4)? ?\|$", TEXT, re.MULTILINE)
    assert {name: (task, needs, int(one_in), bool(four)) for task, name, needs, one_in, four in rows} == {
        kind.name: (kind.task, kind.modality, round(1 / kind.chance) if kind.chance else 0, kind.choices)
        for kind in KINDS.values()
    }


def test_all_that_can_be_drawn_is_listed():
    for names in (COLOURS, SHAPES, BACKGROUNDS, WORDS):
        assert ", ".join(names) in TEXT
    assert " ".join(LETTERS) in TEXT
    assert all(f"| {kind} |" in TEXT for kind in SOUNDS)
