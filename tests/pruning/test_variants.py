"""Methods, retentions and options make the columns of the table."""

import pytest

from omniqa.errors import UsageError
from omniqa.pruning.variants import find, method_variants


def names(*arguments):
    return [column.name for column in method_variants(*arguments)]


def test_every_method_at_every_retention_and_full_tokens_once():
    assert names(["none", "omnidrop", "random"], [0.3, 0.2]) == [
        "none",
        "omnidrop 0.3",
        "omnidrop 0.2",
        "random 0.3",
        "random 0.2",
    ]
    assert names(["random", "random"], [0.3, 0.30]) == ["random 0.3"]


def test_a_method_can_come_with_options_of_its_own():
    made = method_variants(["omnidrop", "omnidrop:tds=false,curve=exp"], [0.3])
    assert [column.name for column in made] == ["omnidrop 0.3", "omnidrop:tds=false,curve=exp 0.3"]
    assert [column.pruner.tds for column in made] == [True, False]
    assert [column.pruner.curve for column in made] == ["sigmoid", "exp"]


def test_an_option_goes_to_all_methods_that_have_it_or_to_the_one_that_is_named():
    made = method_variants(["omnidrop", "omnizip", "random"], [0.3], ["audio_attention=window", "random.seed=7"])
    assert [column.name for column in made] == [
        "omnidrop:audio_attention=window 0.3",
        "omnizip:audio_attention=window 0.3",
        "random:seed=7 0.3",
    ]


@pytest.mark.parametrize(
    ("methods", "retentions", "options", "reason"),
    [
        (["fastest"], [0.3], [], "no pruning method 'fastest'"),
        (["omnidrop"], [0], [], "Retention 0"),
        (["omnidrop"], [0.3], ["speed=9"], "schedule"),
        (["omnidrop"], [0.3], ["tds"], "key=value"),
        (["omnidrop"], [0.3], ["random.seed=1"], "not among the methods"),
        (["omnidrop"], [0.3], ["fastest.seed=1"], "no pruning method 'fastest'"),
        (["omnidrop:speed=9"], [0.3], [], "no option 'speed'"),
        (["omnidrop:tds=perhaps"], [0.3], [], "tds"),
    ],
)
def test_what_makes_no_sense_is_refused(methods, retentions, options, reason):
    with pytest.raises(UsageError, match=reason):
        method_variants(methods, retentions, options)


def test_a_baseline_is_a_column_or_a_method_that_has_but_one():
    made = method_variants(["none", "omnidrop", "random"], [0.3, 0.2])
    assert find(made, "none").name == "none"
    assert find(made, "random 0.2").name == "random 0.2"
    for name in ("random", "fastv"):
        with pytest.raises(UsageError, match=r"random 0\.3"):
            find(made, name)
