"""A model's licence is named as its files state it, or not at all."""

import json

import pytest

from omniqa.models.licence import UNSTATED, licence


def folder(tmp_path, card=None, config=None):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        (
            "---\nlicense: other\nlicense_name: own\nlicense_link: https://example.org/LICENSE\n---\n",
            "own (https://example.org/LICENSE)",
        ),
        ("---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n", "own"),
        ("# A model under Apache-2.0\n", UNSTATED),
        ("---\nlicense: [1, 2]\n---\n", UNSTATED),
        ("---\nlicense: : :\n---\n", UNSTATED),
        ("---\n- license\n---\n", UNSTATED),
        ("", UNSTATED),
    ],
)
def test_the_cards_metadata_state_it(tmp_path, card, said):
    assert licence(folder(tmp_path, card)) == said


def test_the_configuration_states_it_if_the_card_does_not(tmp_path):
    assert licence(folder(tmp_path, "# No metadata\n", json.dumps({"license": "mit"}))) == "mit"


@pytest.mark.parametrize("config", ["{}", "[]", "not json", '{"license": ""}', '{"license": 7}'])
def test_what_is_not_stated_is_not_guessed(tmp_path, config):
    assert licence(folder(tmp_path, None, config)) == UNSTATED


def test_a_model_that_is_not_here_states_nothing():
    assert licence("Qwen/no-such-model") == UNSTATED


def test_nano_comes_under_omniqas_own():
    assert "omniqa's own" in licence("nano")
