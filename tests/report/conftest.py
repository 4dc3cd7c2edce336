"""Answers of nano, each asked once for all tests."""

import pytest

import omniqa
from tests.conftest import ROOT

TIGER = ROOT / "sample_media" / "tiger.mp4"
QUESTION = "What is heard last?"


@pytest.fixture(scope="session")
def nano_qa():
    return omniqa.load("nano", device="cpu")


@pytest.fixture(scope="session")
def answers(nano_qa):
    """By omnidrop and with all tokens, about one clip."""
    return [nano_qa.ask(TIGER, QUESTION), nano_qa.ask(TIGER, QUESTION, "none")]
