"""Methods by name, their options from text, and the docs that describe them."""

import importlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest

from omniqa.errors import UsageError
from omniqa.pruning import methods, registry
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.methods.omnidrop.method import OmniDrop
from omniqa.pruning.options import options_of
from tests.pruning.clip import entered, media_tokens

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
GUIDE = DOCS.with_name("add-a-method.md")


def test_the_known_methods():
    assert {"none", "omnidrop"} <= set(registry.methods())
    assert registry.get("omnidrop") is OmniDrop


def test_an_unknown_method_is_an_error_that_names_the_known():
    with pytest.raises(UsageError, match=r"'omnidorp'.* none, omnidrop"):
        registry.create("omnidorp", 0.3)


def test_options_are_read_by_their_types():
    texts = ["schedule=paper", "tds=off", "beta=12", "lam = 1e-3", "t_mid=none", "l_div=9", "l_div=10"]
    options = registry.parse_options("omnidrop", texts)
    assert options == {"schedule": "paper", "tds": False, "beta": 12.0, "lam": 1e-3, "t_mid": None, "l_div": 10}
    assert type(options["beta"]) is float
    assert registry.create("omnidrop", 0.3, **options) == OmniDrop(0.3, **options)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("curve=linear", r"curve=linear is not allowed; it takes sigmoid\|exp"),
        ("tds=perhaps", "it takes true\\|false"),
        ("beta=steep", "it takes number"),
        ("beta=nan", "it takes number"),
        ("beta=", "it takes number"),
        ("l_div=1.5", r"it takes whole number\|none"),
        ("beta=none", "it takes number"),
        (
            "rho_a=0.4",
            r"no option 'rho_a'.*schedule \(exact\|paper, default exact\).*l_div \(whole number\|none, default none\)",
        ),
        ("tds", "write it as key=value.*tds \\(true\\|false, default true\\)"),
    ],
)
def test_an_option_that_can_not_be_read_is_an_error_that_says_what_can(text, complaint):
    with pytest.raises(UsageError, match=complaint):
        registry.parse_options("omnidrop", [text])


@pytest.mark.parametrize(
    "options", [{"curve": "linear"}, {"tds": "no"}, {"tds": 1}, {"beta": "20"}, {"beta": True}, {"l_div": 2.0}]
)
def test_values_from_python_are_checked_too(options):
    with pytest.raises(UsageError, match="is not allowed"):
        registry.create("omnidrop", 0.3, **options)


def test_an_unknown_option_from_python_is_the_same_error():
    with pytest.raises(UsageError, match="no option 'rho_a'"):
        registry.create("omnidrop", 0.3, rho_a=0.4)
    with pytest.raises(UsageError, match="It has no options"):
        registry.create("none", 0.3, rho_a=0.4)


def test_every_kind_of_option_reads_and_describes_itself():
    @dataclass(frozen=True)
    class Method:
        name: ClassVar[str] = "method"
        retention: float
        plain: int = 3
        word: Annotated[str, "a word"] = "x"
        choice: Annotated[Literal["a", "b"] | None, "a choice"] = None

    plain, word, choice = options_of(Method)
    assert [str(option) for option in (plain, word, choice)] == [
        "plain (whole number, default 3)",
        "word (text, default x)",
        "choice (a|b|none, default none)",
    ]
    assert [plain.parse("-4"), word.parse("y"), choice.parse("b"), choice.parse("none")] == [-4, "y", "b", None]
    assert (plain.help, word.help) == ("", "a word")


def test_planning_needs_no_torch():
    program = """
import sys
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens
for name in registry.methods():
    registry.create(name, 0.5).plan(ClipTokens(1600, 64, 144), 28)
registry.parse_options("omnidrop", ["tds=false"])
heavy = {"torch", "numpy", "transformers"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- docs/methods.md ---


@pytest.mark.parametrize("name", [name for name in registry.methods() if registry.options(name)])
def test_the_docs_list_each_option_as_it_is(name):
    section = DOCS.read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| `(.+?)` \| (.+) \|$", section, re.MULTILINE)
    assert [(key, kind.replace("\\|", "|").strip("`"), default) for key, kind, default, _ in rows] == [
        (option.name, option.words, option.default_text) for option in registry.options(name)
    ]


@pytest.fixture
def uniform(tmp_path, monkeypatch):
    """The docs' example, put into the package as a file of its own and found there."""
    example = GUIDE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "uniform.py").write_text(example, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield registry
    sys.modules.pop("omniqa.pruning.methods.uniform", None)
    vars(methods).pop("uniform", None)


def test_the_docs_example_is_a_method_once_its_file_is_there(uniform):
    options = uniform.parse_options("uniform", ["at_least=4"])
    method = uniform.create("uniform", 0.25, **options)
    clip = ClipTokens(40, 3, 20)
    plan = method.plan(clip, 28)
    assert plan.retention == 0.25
    assert entered(method, media_tokens(clip), plan).tolist() == list(range(0, 100, 4))
    assert uniform.create("uniform", 0.01, **options).plan(clip, 28).kept[0] == 4


def test_the_example_is_gone_when_its_file_is():
    assert "uniform" not in registry.methods()
