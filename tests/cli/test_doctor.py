"""`omniqa doctor` runs omniqa, and says what is missing, untested or too small."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from omniqa.cli import doctor, versions

ROOT = Path(__file__).parents[2]

# The command line in a process where a package can't be found, as if it were not installed.
WITHOUT = """
import importlib.metadata, importlib.util, sys
gone = sys.argv.pop(1)
real_spec, real_version = importlib.util.find_spec, importlib.metadata.version

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def find_spec(name, *rest):
    return None if name == gone else real_spec(name, *rest)

def version(name):
    if name.replace("-", "_") == gone:
        raise importlib.metadata.PackageNotFoundError(name)
    return real_version(name)

sys.meta_path.insert(0, Hidden())
importlib.util.find_spec, importlib.metadata.version = find_spec, version
from omniqa.cli.app import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def without(package, *arguments):
    command = [sys.executable, "-c", WITHOUT, package, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def findings(text):
    return {finding["subject"]: finding for finding in json.loads(text)}


def test_it_answers_about_its_own_clip_in_an_empty_folder(omniqa, tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)
    code, out, _ = omniqa("doctor", "--json")
    assert code == 0
    found = findings(out)
    assert "2 of 2 answers" in found["a run"]["found"]
    assert re.search(r"\d\.\d s", found["a run"]["found"])
    assert {"omniqa", "Python", "torch", "av", "memory", "CPU", "attention", "cache folder", "hub"} <= set(found)
    assert not any(finding["state"] == "failed" for finding in found.values())
    assert not list(tmp_path.iterdir())


def test_a_wrong_answer_is_a_failure(omniqa, monkeypatch, offline):
    monkeypatch.setattr(doctor, "CHECKS", {"What does the voice say?": "goodbye"})
    code, out, _ = omniqa("doctor", "--json")
    assert code == 4
    assert "'hello', not 'goodbye'" in findings(out)["a run"]["found"]


def test_a_fault_in_a_library_is_a_failure_and_no_traceback(omniqa, monkeypatch, offline):
    def faulty(*_, **__):
        raise TypeError("open() got an unexpected keyword argument")

    monkeypatch.setattr("omniqa.media.container.av.open", faulty)
    code, out, err = omniqa("doctor", "--json")
    assert code == 4
    assert "unexpected keyword argument" in findings(out)["a run"]["found"]
    assert "Traceback" not in err


@pytest.mark.parametrize("package", ["torch", "av"])
def test_a_missing_package_is_said_plainly(package):
    done = without(package, "doctor", "--json")
    found = findings(done.stdout)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False)
    assert (found[package]["found"], found[package]["advice"]) == ("missing", f"pip install {package}")
    assert package in found["a run"]["advice"]
    assert "memory" in found


@pytest.mark.parametrize("package", ["psutil", "huggingface-hub"])
def test_without_what_looks_at_the_machine_the_rest_is_said(package):
    done = without(package.replace("-", "_"), "doctor", "--json")
    found = findings(done.stdout)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False)
    assert found[package]["found"] == "missing"
    assert package in found["machine"]["advice"]


def test_ask_without_torch_is_one_line(clip):
    done = without("torch", "ask", clip, "What?", "--model", "nano", "-q")
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert "torch is not installed: pip install torch" in done.stderr


@pytest.mark.parametrize(
    ("package", "version", "said"),
    [
        ("torch", "2.13.0+cpu", ""),
        ("torch", "2.99.1", "not tested"),
        ("torch", "3.0", "not tested"),
        ("av", "19.0.2", ""),
        ("av", "20.0", "not tested"),
        ("transformers", "4.57.1", "too old"),
        ("python", "3.13.1", ""),
        ("python", "3.15.0", "not tested"),
    ],
)
def test_versions_that_no_test_ran_with_are_told(package, version, said):
    assert versions.untested(package, version).startswith(said)
    assert bool(versions.untested(package, version)) == bool(said)


def test_every_package_that_is_needed_has_its_tested_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert names == set(versions.PACKAGES)


def test_the_pinned_versions_are_tested_ones():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name: versions.untested(name, pins[name]) for name in versions.PACKAGES} == dict.fromkeys(
        versions.PACKAGES, ""
    )


def test_the_hub_is_given_up_after_seconds(monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(doctor, "HUB_SECONDS", 0.2)
        said = doctor._reach(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "can't be reached" in said or "no answer" in said


@pytest.mark.parametrize("width", [60, 80, 120])
def test_its_table_fits(omniqa, monkeypatch, offline, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(doctor, "_run", lambda step: doctor.Finding("a run", "2 of 2 answers about a clip right"))
    _, out, _ = omniqa("doctor")
    assert max(map(len, out.splitlines())) <= width
    assert "Qwen/Qwen2.5-Omni-7B" in out
