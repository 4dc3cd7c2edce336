"""Where a model of the hub is not to be had, a sentence says why; what is in the local cache needs no hub.

A server on loopback answers as the hub does. Each look-up runs in a process of its own, as the library reads its
environment once.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from omniqa.errors import ModelError
from omniqa.models import hub
from omniqa.models.licence import UNSTATED
from omniqa.models.qwen2_5_omni.checkpoint import HUB_3B, HUB_7B, check_name, find_checkpoint
from tests.conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOOK_UP = """
import json, sys, time
from omniqa.errors import OmniqaError
from omniqa.models.qwen2_5_omni.checkpoint import find_checkpoint
steps, begun = [], time.monotonic()
try:
    end = {"folder": str(find_checkpoint(sys.argv[1], steps.append).folder)}
except OmniqaError as error:
    end = {"code": error.exit_code, "message": str(error)}
print(json.dumps(end | {"steps": steps, "seconds": time.monotonic() - begun, "torch": "torch" in sys.modules}))
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, by the model's name."""

    folder: Path
    asked: list[str]

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        self.asked.append(self.path)
        owner, name, _, revision, file = self.path.lstrip("/").split("/", 4)
        if (token := self.headers.get("Authorization")) not in (None, "Bearer good"):
            self.refuse(401, message="Invalid credentials in Authorization header")
        elif name == "gated":
            self.refuse(403 if token else 401, "GatedRepo", "Access to this model is restricted.")
        elif name == "busy":
            self.refuse(503)
        elif name == "lost" and file != "config.json":
            self.send(file, revision, body, share=0.5)
        elif owner == "someone" and name in ("omni", "lost"):
            self.send(file, revision, body)
        else:
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")

    def refuse(self, status, code=None, message=None):
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Error-Message", message)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, file, revision, body, share=1.0):
        path = self.folder / file
        assert revision in ("main", COMMIT)
        if not path.exists():
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{file}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[: int(share * len(content))])
            self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    """A hub whose model is in a folder: its address, and the list of what it was asked for."""
    handler = type("Handler", (Hub,), {"folder": folder, "asked": []})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", handler.asked
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(scope="module")
def server(checkpoint):
    """The address of the hub, and the list of what it was asked for."""
    with serving(checkpoint) as served:
        yield served


def hub_environment(address, home):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    # Without what conftest.py puts there for itself: a process that loads a model lacks its declarations.
    path = [folder for folder in sys.path if Path(folder).name != "torchvision"]
    return kept | settings | {"PYTHONPATH": os.pathsep.join(path)}


@pytest.fixture
def look_up(server, tmp_path):
    """Look a model up in a fresh process; gives what the script above prints."""

    def call(model, **environment):
        done = subprocess.run(
            [sys.executable, "-c", LOOK_UP, model],
            capture_output=True,
            text=True,
            env=hub_environment(server[0], tmp_path / "hf") | environment,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


def test_no_such_model_gated_and_a_bad_token_are_different_sentences(look_up, server):
    none = look_up("someone/none")
    gated = look_up("someone/gated")
    refused = look_up("someone/omni", HF_TOKEN="bad")
    assert "The hub has no model someone/none" in none["message"]
    assert "someone/gated is gated: accept its terms" in gated["message"]
    assert "does not accept your access token" in refused["message"]
    for end in (none, gated, refused):
        assert end["code"] == 4
        assert end["steps"][0].startswith("looking up someone/")
        assert not end["torch"]


def test_a_good_token_changes_nothing_about_them(look_up):
    assert "has no model someone/none" in look_up("someone/none", HF_TOKEN="good")["message"]
    assert "gated" in look_up("someone/gated", HF_TOKEN="good")["message"]


def test_a_token_that_is_no_token_is_a_bad_one(look_up):
    assert "does not accept your access token" in look_up("someone/omni", HF_TOKEN="pass wörd")["message"]


def test_offline_is_a_sentence_of_its_own(look_up):
    end = look_up("Qwen/Qwen2.5-Omi-7B", HF_HUB_OFFLINE="1")
    assert end["code"] == 4
    assert "HF_HUB_OFFLINE" in end["message"]
    assert f"Did you mean {HUB_7B}?" in end["message"]


def test_a_hub_that_can_not_be_reached_is_told_soon(look_up):
    end = look_up("someone/omni", HF_ENDPOINT="http://127.0.0.1:9")
    assert end["code"] == 4
    assert "http://127.0.0.1:9 can't be reached" in end["message"]


def test_a_hub_that_never_answers_is_given_up_after_the_librarys_own_limit(look_up):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as silent:  # it listens, and nobody serves
        end = look_up("someone/omni", HF_ENDPOINT=f"http://127.0.0.1:{silent.server_port}", HF_HUB_ETAG_TIMEOUT="1")
    assert "can't be reached" in end["message"]
    assert end["seconds"] < 20  # with the library's own retries it would be minutes


def test_a_busy_hub_is_told_with_its_answer(look_up):
    assert "answers with error 503" in look_up("someone/busy")["message"]


def test_a_model_is_downloaded_once_and_then_needs_no_hub(look_up, server, checkpoint):
    first = look_up("someone/omni")
    assert Path(first["folder"]).name == COMMIT
    weight_map = json.loads((checkpoint / "model.safetensors.index.json").read_text())["weight_map"]
    shards = {shard for name, shard in weight_map.items() if name.startswith("thinker.")}
    assert sum(step.startswith("downloading shard") for step in first["steps"]) == len(shards)
    del server[1][:]
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, {}):
        again = look_up("someone/omni", **environment)
        assert again["folder"] == first["folder"]
        assert again["steps"] == ["looking up someone/omni"]
    assert server[1] == []


@pytest.mark.parametrize(
    ("card", "said"),
    [("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"), ("# A model\n", UNSTATED)],
)
def test_ask_names_the_licence_once_as_the_card_of_what_it_downloaded_states_it(checkpoint, tmp_path, card, said):
    model = shutil.copytree(checkpoint, tmp_path / "model")
    (model / "README.md").write_text(card)
    command = [sys.executable, "-m", "omniqa", "ask", "sample_media/hello.mp4", "What?", "--model", "someone/omni"]
    options = ["--max-new-tokens", "1", "--end", "1s", "--max-pixels", "12544", "--device", "cpu"]
    with serving(model) as (address, _):
        environment = hub_environment(address, tmp_path / "hf")
        first, again = (
            subprocess.run([*command, *options], capture_output=True, text=True, env=environment, cwd=ROOT)
            for _ in range(2)
        )
    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    lines = [line for line in first.stderr.splitlines() if "licence" in line]
    assert lines == [f"omniqa: someone/omni was downloaded; its licence: {said}"]
    assert "licence" not in again.stderr + first.stdout


def test_a_checkpoint_in_one_file_needs_no_hub_either(checkpoint, tmp_path, monkeypatch):
    """Nobody has noted that it has no index."""
    snapshot = tmp_path / "models--someone--nano" / "snapshots" / COMMIT
    shutil.copytree(find_checkpoint("nano").folder, snapshot)
    (tmp_path / "models--someone--nano" / "refs").mkdir()
    (tmp_path / "models--someone--nano" / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_checkpoint("someone/nano").folder == snapshot
    assert "someone/nano" in hub.did_you_mean("someone/nanno")


def test_a_download_that_breaks_off_is_told(look_up):
    end = look_up("someone/lost", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert end["code"] == 4
    assert "someone/lost" in end["message"]
    assert "\n" not in end["message"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "is full"),
        (RuntimeError("Data processing error: No space left on device (os error 28)"), "is full"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
        (RuntimeError("Data processing error: the connection was reset"), "broke off .*was reset"),
    ],
)
def test_a_disk_or_a_library_that_fails_meanwhile_is_told(monkeypatch, tmp_path, fault, words):
    def refuse(*_, **__):
        raise fault

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=words):
        find_checkpoint("someone/omni")


def test_a_local_cache_with_broken_notes_is_told(monkeypatch, tmp_path):
    (tmp_path / "models--someone--omni" / "refs").mkdir(parents=True)
    (tmp_path / "models--someone--omni" / "refs" / "main").write_bytes(b"\xff")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"local cache .* can't be read"):
        find_checkpoint("someone/omni")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("Qwen2.5-Omni-7B", HUB_7B),
        ("qwen/qwen2.5-omni-3b", HUB_3B),
        ("Qwen/Qwen2.5-Omi-7B", HUB_7B),
        ("qwen2.5omni-3b", HUB_3B),
        ("Qwen2.5-Omni", f"{HUB_7B} or {HUB_3B}"),
        ("nanno", "nano"),
    ],
)
def test_near_names_are_offered(given, meant):
    assert hub.did_you_mean(given) == f" Did you mean {meant}?"


@pytest.mark.parametrize("given", ["llava-hf/llava-1.5-7b", "./checkpoints/mine", "x"])
def test_far_names_are_not(given):
    assert hub.did_you_mean(given) == ""


@pytest.mark.parametrize("name", ["no-such-folder", "./a/b", "a--b/c", "a/b/c", "/a/b", "a/b..c", "ä/b", "a/b.git"])
def test_what_is_no_id_is_refused_without_asking(name):
    with pytest.raises(ModelError, match="no folder"):
        check_name(name)
