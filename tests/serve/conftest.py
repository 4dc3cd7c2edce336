"""A server of the small checkpoint, on a free port of this machine, in a thread of its own."""

import asyncio
import http.client
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

import omniqa
from omniqa.media.sampling import ClipOptions
from omniqa.pruning import registry
from omniqa.runtime.generation_options import GenerationOptions
from omniqa.serve.settings import Limits, ServeSettings
from tests.conftest import ROOT
from tests.media.clips import Audio, Video, grey, tone, write_clip

SMALL = ClipOptions(min_pixels=784, max_pixels=28 * 28 * 24, max_frames=16)


def settings_for(root=None, limits=None, **more):
    """Settings that keep answers short and clips small."""
    return ServeSettings(
        **{
            "method": registry.create("omnidrop", 0.4), "port": 0, "media_root": root, "sampling": SMALL,
            "decoding": GenerationOptions(max_new_tokens=6), "limits": replace(Limits(), **(limits or {})),
            **more,
        }
    )  # fmt: skip


class Client:
    """Sends requests to a server, with any headers."""

    def __init__(self, port, server):
        self.port, self.server = port, server

    @property
    def base(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, headers=None, timeout=60):
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def chat(self, url, *questions, timeout=60, headers=None, **more):
        """Status and JSON of a chat completion about a clip."""
        status, _, body = self.ask("POST", "/v1/chat/completions", chat(url, *questions, **more), headers, timeout)
        return status, json.loads(body)

    def metrics(self, line):
        """Whether /metrics has a line that begins so."""
        return f"\n{line}" in self.ask("GET", "/metrics")[2].decode()


def until(holds, seconds=20):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def chat(url, *questions, **more):
    """A request about a clip: questions with made-up answers between them."""
    first, *others = questions or ("What happens?",)
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": first}]
    messages = [{"role": "user", "content": parts}]
    for other in others:
        messages += [{"role": "assistant", "content": "A dog."}, {"role": "user", "content": other}]
    return {"model": "omniqa", "messages": messages, **more}


@contextmanager
def running(qa, settings):
    """A client of a server that runs in a thread."""
    for package in ("uvicorn", "fastapi", "prometheus_client", "python_multipart"):
        pytest.importorskip(package, reason="needs what omniqa[serve] installs")
    from omniqa.serve.app import Server
    from omniqa.serve.run import Running, open_socket

    listening = open_socket("127.0.0.1", settings.port)
    server, ready = Server(qa, settings), threading.Event()
    run = Running(server, settings, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(run.serve(sockets=[listening])))
    thread.start()
    try:
        assert ready.wait(30)
        yield Client(listening.getsockname()[1], server)
    finally:
        run.should_exit = True
        thread.join(60)
        server.close()
        listening.close()
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def media_root(tmp_path_factory):
    """A folder with clips, and beside it a file that no client may read."""
    outside = tmp_path_factory.mktemp("serve")
    root = outside / "root"
    (root / "inner").mkdir(parents=True)
    write_clip(root / "a.mp4", Video([grey(i % 8, 112, 112) for i in range(20)], 10), Audio(tone(2.0)))
    write_clip(root / "inner" / "long.mp4", Video([grey(i % 8, 112, 112) for i in range(80)], 10), Audio(tone(8.0)))
    write_clip(root / "inner" / "sound.mp3", audio=Audio(tone(2.0), codec="libmp3lame"))
    write_clip(outside / "secret.mp4", Video([grey(i % 8, 112, 112) for i in range(20)], 10))
    (root / "notes.txt").write_text("no clip")
    (root / "link.mp4").symlink_to(outside / "secret.mp4")
    (root / "linked").symlink_to(outside)
    (root / "inside.mp4").symlink_to(root / "a.mp4")
    return root


SAMPLES = ROOT / "sample_media"
NANO = {"sampling": ClipOptions(), "decoding": GenerationOptions()}  # settings with which nano answers well


@pytest.fixture(scope="session")
def nano():
    """nano, loaded."""
    return omniqa.load("nano", device="cpu")


@pytest.fixture(scope="session")
def nano_server(nano):
    """A client of a server of nano with the sample clips."""
    with running(nano, settings_for(SAMPLES, **NANO)) as client:
        yield client


@pytest.fixture(scope="session")
def server(qa, media_root):
    """A client of a server with a media root."""
    with running(qa, settings_for(media_root)) as client:
        yield client
