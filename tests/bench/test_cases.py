"""Which methods are measured at which retentions, and how often."""

import pytest

from omniqa.bench.cases import RETENTIONS, Rounds, make_cases
from omniqa.errors import UsageError
from omniqa.pruning import registry
from omniqa.pruning.methods.omnidrop.method import OmniDrop


def named(cases):
    return [(case.pruner.name, case.pruner.target) for case in cases]


def test_by_default_every_method_is_measured_at_every_retention_and_full_tokens_once_and_first():
    cases = make_cases()
    others = [name for name in registry.methods() if name != "none"]
    assert named(cases) == [("none", 1.0), *((name, R) for name in others for R in RETENTIONS)]
    assert [case.pruner.name for case in cases if case.required] == ["none"]


def test_full_tokens_are_measured_whatever_is_asked():
    assert named(make_cases(["random"], [0.3, 0.2, 0.3])) == [("none", 1.0), ("random", 0.3), ("random", 0.2)]
    assert named(make_cases(["random", "none"], [0.3])) == [("none", 1.0), ("random", 0.3)]
    assert all(case.required for case in make_cases(["random"]))


def test_a_method_can_be_measured_beside_itself_with_other_options():
    cases = make_cases(["omnidrop", "omnidrop:tds=false"], [0.3], ["omnidrop.beta=10"])
    assert [case.pruner for case in cases[1:]] == [OmniDrop(0.3, beta=10.0), OmniDrop(0.3, beta=10.0, tds=False)]


@pytest.mark.parametrize(
    ("methods", "retentions", "settings", "message"),
    [
        (["fastest"], [], [], "fastest"),
        (["random"], [0.0], [], "Retention 0"),
        (["random"], [], ["random.speed=9"], "speed"),
        (["random"], [], ["omnizip.g=5"], "omnizip"),
    ],
)
def test_what_makes_no_sense_is_refused(methods, retentions, settings, message):
    with pytest.raises(UsageError, match=message):
        make_cases(methods, retentions, settings)


@pytest.mark.parametrize("numbers", [{"repeats": 0}, {"warmup": -1}, {"new_tokens": 0}])
def test_rounds_are_within_reason(numbers):
    with pytest.raises(UsageError, match="must be at least"):
        Rounds(**numbers)
