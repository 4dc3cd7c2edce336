"""A method is found in the package, in an installed package, or in a user's own file."""

import json
import os
import pickle
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from omniqa.errors import UsageError
from omniqa.pruning import registry, user_file
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.variants import method_files, method_variants
from tests.pruning.clip import entered, media_tokens

GUIDE = Path(__file__).parents[2] / "docs" / "add-a-method.md"
EXAMPLE = GUIDE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


@pytest.fixture
def mine(tmp_path):
    """The docs' example in a user's file."""
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLE, encoding="utf-8")
    return path


def test_the_docs_example_has_twenty_lines_and_works_from_a_users_own_file(mine):
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 20
    spec = f"{mine}:Uniform"
    method = registry.create(spec, 0.25, **registry.parse_options(spec, ["at_least=4"]))
    clip = ClipTokens(40, 3, 20)
    plan = method.plan(clip, 28)
    assert plan.retention == 0.25
    assert entered(method, media_tokens(clip), plan).tolist() == list(range(0, 100, 4))
    assert registry.create(spec, 0.01, at_least=4).plan(clip, 28).kept[0] == 4
    assert "uniform" not in registry.names()


def test_options_are_written_behind_the_class(mine):
    made = method_variants([f"{mine}:Uniform:at_least=2", f"{mine}:Uniform"], [0.5], ["uniform.at_least=3"])
    assert [variant.name for variant in made] == ["uniform:at_least=2 0.5", "uniform:at_least=3 0.5"]
    with pytest.raises(UsageError, match="has no option 'speed'"):
        method_variants([f"{mine}:Uniform:speed=2"], [0.5])


def test_a_file_is_run_again_once_it_has_changed_and_a_run_knows_which_it_was(mine):
    first = method_variants([f"{mine}:Uniform"], [0.5])
    assert registry.get(f"{mine}:Uniform") is type(first[0].pruner)
    mine.write_text(EXAMPLE.replace('summary = "', 'summary = "other: '), encoding="utf-8")
    second = method_variants([f"{mine}:Uniform"], [0.5])
    assert second[0].pruner.summary.startswith("other: ")
    assert method_files(first) != method_files(second) != method_files(method_variants(["none"], [0.5])) == {}


def test_two_methods_of_one_name_are_not_taken_for_one(mine, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(EXAMPLE + "\n# another\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"Two different methods are called uniform 0\.5"):
        method_variants([f"{mine}:Uniform", f"{other}:Uniform"], [0.5])


BASE = "from dataclasses import dataclass\nfrom omniqa.pruning import ClipTokens, Method, Plan\n"
WHOLE = """
@dataclass(frozen=True)
class Mine(Method):
    name = "mine"
    paper = summary = ""
    def plan(self, clip, layers):
        return Plan(clip, (clip.n,) * layers)
"""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "can't be read"),
        ("import no_such_module_at_all", r"fails in line 1 \(ModuleNotFoundError: No module named 'no_such"),
        ("def broken(:", r"fails in line 1 \(SyntaxError"),
        ("raise SystemExit(3)", r"fails in line 1 \(SystemExit: 3"),
        (BASE, "has no class Mine; it has no method at all"),
        (BASE + WHOLE.replace("class Mine", "class Yours"), "has no class Mine; it has Yours"),
        ("Mine = 3", "is no pruning method"),
        ("class Mine: pass", "is no pruning method"),
        (BASE + WHOLE.replace("@dataclass(frozen=True)", ""), "not decorated"),
        (BASE + WHOLE.replace('name = "mine"', ""), "has no name"),
        (BASE + WHOLE.replace("paper = summary", "paper"), "has no summary"),
        (BASE + WHOLE.replace('"mine"', '"My method"'), "no name for a method"),
        (BASE + WHOLE.replace('"mine"', '"omnidrop"'), "a method of omniqa's own"),
        (BASE + WHOLE.replace("def plan", "def plans"), "lacks plan"),
        (BASE + WHOLE.replace("    name =", "    size: complex = 3j\n    name ="), "an option whose type"),
        (BASE + WHOLE.replace("    name =", "    size: int = 'x'\n    name ="), "size=x is not allowed"),
    ],
)
def test_a_file_without_a_whole_method_is_one_line_that_says_what_it_lacks(tmp_path, text, complaint):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=complaint) as raised:
        registry.get(f"{path}:Mine")
    assert "\n" not in str(raised.value)


def test_the_file_of_those_cases_is_a_method_if_nothing_is_wrong(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(BASE + WHOLE, encoding="utf-8")
    assert registry.create(f"{path}:Mine", 0.5).plan(ClipTokens(3, 0, 0), 2).kept == (3, 3)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Packages that were installed, by their entry points."""

    def install(**points):
        monkeypatch.syspath_prepend(tmp_path)
        found = {name: EntryPoint(name, value, registry.GROUP) for name, value in points.items()}
        monkeypatch.setattr(registry, "_entry_points", lambda: found)

    return install


def test_an_installed_package_adds_a_method(installed, tmp_path):
    (tmp_path / "their_package.py").write_text(EXAMPLE, encoding="utf-8")
    installed(uniform="their_package:Uniform")
    assert registry.names()[-1] == "uniform"
    assert registry.create("uniform", 0.5).plan(ClipTokens(10, 0, 0), 2).kept == (5, 5)


def test_a_package_that_pip_installed_gives_its_method_to_the_command_line(tmp_path):
    """The metadata is what pip writes; nothing of it is patched in."""
    (tmp_path / "their_package.py").write_text(EXAMPLE, encoding="utf-8")
    metadata = tmp_path / "their_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(
        f"[{registry.GROUP}]\nuniform = their_package:Uniform\n", encoding="utf-8"
    )
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    command = [sys.executable, "-m", "omniqa", "methods", "uniform", "--json"]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert [option["name"] for option in json.loads(done.stdout)[0]["options"]] == ["at_least"]


def test_a_broken_package_is_an_error_once_its_method_is_asked_for(installed):
    installed(gone="no_such_package_at_all:Gone", omnidrop="json:loads", odd="json:loads")
    assert {"gone", "omnidrop"} <= set(registry.names())
    assert registry.create("random", 0.5)
    with pytest.raises(UsageError, match=r"gone \(no_such_package_at_all:Gone\) can't be imported"):
        registry.get("gone")
    with pytest.raises(UsageError, match=r"odd .* is no pruning method"):
        registry.get("odd")


def test_an_instance_stands_for_itself():
    method = registry.create("omnidrop", 0.4, tds=False)
    assert registry.resolve(method) is method
    assert registry.resolve("random").retention == 0.3
    assert [variant.name for variant in method_variants([method, "random"], [0.2])] == [
        "omnidrop:tds=false 0.4",
        "random 0.2",
    ]
    for more in ({"retention": 0.4}, {"options": {"tds": True}}):
        with pytest.raises(UsageError, match="an instance already"):
            registry.resolve(method, **more)


def test_a_method_of_a_file_goes_to_another_process(mine):
    method = registry.create(f"{mine}:Uniform", 0.25, at_least=7)
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer))"
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(method), capture_output=True, check=True)
    assert re.search(r"Uniform\(retention=0.25, at_least=7\)", done.stdout.decode())
    assert pickle.loads(pickle.dumps(method)) == method


def test_a_word_is_no_file_and_a_windows_path_is_one():
    assert user_file.split_spec("omnidrop:tds=false,beta=3") == ("omnidrop", "tds=false,beta=3")
    assert user_file.split_spec(r"C:\my\mine.py:Mine:a=1") == (r"C:\my\mine.py:Mine", "a=1")
    assert not user_file.is_file_spec("omnidrop")
