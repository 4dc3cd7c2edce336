"""A server that is killed in the middle of its work leaves a whole cache, and its uploads are deleted by the next."""

import signal
import threading
from contextlib import suppress
from http.client import HTTPException

import pytest

from benchmarks.serve_load import ask, serving
from tests.serve.conftest import SAMPLES, Client, chat, until

QUESTIONS = {"tiger.mp4": ("What is heard last?", "noise"), "hello.mp4": ("What does the voice say?", "hello")}


def answer(port, clip):
    """The answer to a clip's question, and the seconds that its frames took."""
    status, body = Client(port, None).chat(clip, QUESTIONS[clip][0], timeout=120)
    assert status == 200, body
    return body["choices"][0]["message"]["content"], body["omniqa"]["timing_s"]["vision_encoder"]


def test_after_kill_9_the_cache_is_whole_and_uploads_are_deleted(tmp_path):
    for package in ("uvicorn", "fastapi", "prometheus_client", "python_multipart"):
        pytest.importorskip(package, reason="needs what omniqa[serve] installs")
    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    temporary.mkdir()
    options = ("--media-root", str(SAMPLES), "--cache", str(cache))
    with serving(*options, TMPDIR=str(temporary), OMP_NUM_THREADS="1") as (process, port):
        assert answer(port, "tiger.mp4")[0] == "noise"
        kept = set(cache.iterdir())
        asking = threading.Thread(target=_ask_in_vain, args=(port,))
        asking.start()
        until(lambda: set(cache.iterdir()) != kept, 120)  # the second clip is about to be written, or has been
        process.send_signal(signal.SIGKILL)
        asking.join(60)
    assert kept <= set(cache.iterdir())
    (left,) = temporary.glob("omniqa-serve-*")
    with serving(*options, TMPDIR=str(temporary), OMP_NUM_THREADS="1") as (process, port):
        assert not left.exists()
        assert answer(port, "tiger.mp4") == ("noise", 0), "read from the cache"
        assert answer(port, "hello.mp4")[0] == "hello"
        process.send_signal(signal.SIGTERM)
        assert "damaged" not in process.communicate(timeout=60)[1]
    assert list(temporary.iterdir()) == []


def _ask_in_vain(port):
    with suppress(OSError, HTTPException):
        ask(port, chat("hello.mp4", QUESTIONS["hello.mp4"][0]))
