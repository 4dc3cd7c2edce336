"""Ctrl-C at many places: no thread, of Python's or of FFmpeg's, and no file descriptor is left behind."""

import gc
import os
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

from omniqa.errors import MediaError
from omniqa.interrupts import free_locals
from omniqa.jobs.clips import is_media
from omniqa.media.access import Access
from omniqa.media.clip import ClipOptions, sample, stream_clip
from omniqa.media.pipe import spool_to_tempfile
from omniqa.media.probe import probe
from omniqa.media.watchdog import heartbeat, run_watched
from tests.leftovers import left_behind, settled, steps_of
from tests.media import cases
from tests.media.clips import Audio, Video, grey, tone, write_clip

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")

SMALL = ClipOptions(fps=8, min_pixels=784, max_pixels=784)
PLACES = 6  # of each kind of work, at which it is interrupted


@pytest.fixture(autouse=True)
def nothing_is_collected():
    """Only what is closed at once counts; and SIGINT interrupts, although a test run in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module", params=[".mp4", ".ts"])
def clip(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("interrupts") / f"clip{request.param}"
    return write_clip(path, Video([grey(k) for k in range(25)]), Audio(tone(1.0)))


@pytest.fixture(scope="module")
def address(clip):
    """The clip on this machine's own network, from another process, by a server that knows no byte ranges."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, cwd=clip.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        port = server.stdout.readline().decode().split(" port ")[1].split()[0]
        yield f"http://127.0.0.1:{port}/{clip.name}"
        server.terminate()


def interrupted_everywhere(work):
    """Interrupt `work` at `PLACES` of its steps, one after the other; each time, all is as it was before."""
    work()
    before = settled()
    steps = steps_of(work)
    assert steps > PLACES
    for place in range(PLACES):
        at = 1 + place * steps // PLACES
        with suppress(KeyboardInterrupt):
            steps_of(work, at)
        assert not left_behind(before), f"interrupted at step {at} of {steps}"


def test_reading_a_clip(clip):
    interrupted_everywhere(lambda: sample(clip, SMALL))


def test_taking_a_clip_piece_by_piece(clip):
    interrupted_everywhere(lambda: list(stream_clip(clip, SMALL, room=1)))


def test_probing(clip):
    interrupted_everywhere(lambda: probe(clip))
    interrupted_everywhere(lambda: is_media(str(clip)))


def test_reading_a_clip_from_an_address(address):
    sampling = ClipOptions(fps=2, min_pixels=784, max_pixels=784, allow_network=True)
    interrupted_everywhere(lambda: sample(address, sampling))
    interrupted_everywhere(lambda: probe(address, Access(allow_network=True)))


def test_keeping_what_comes_through_a_pipe():
    def work():
        with spool_to_tempfile((bytes([number]) for number in range(20)), "stdin") as path:
            assert path.stat().st_size == 20

    interrupted_everywhere(work)


@pytest.mark.parametrize("damage", [cases.damaged, cases.TAKEN["cut at 5/10"], cases.REFUSED["index damaged"]])
def test_reading_what_is_damaged(tmp_path, damage):
    path = damage(tmp_path / "case")

    def work():
        with suppress(MediaError):
            sample(path, SMALL)

    interrupted_everywhere(work)


@pytest.mark.parametrize("rotated", [False, True])
def test_a_clip_that_has_been_read_holds_no_thread_and_no_picture(tmp_path, rotated):
    """Without an interrupt, too: each picture's converter has threads of its own."""
    matrix = {"matrix": (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)} if rotated else {}
    path = write_clip(tmp_path / "a.mp4", Video([grey(k, 480, 640) for k in range(8)], **matrix))
    sample(path, SMALL)
    before = settled()
    sample(path, SMALL)
    assert not left_behind(before)


def test_an_error_holds_nothing_of_the_functions_that_it_ended():
    class Open:
        alive = 0

        def __init__(self):
            Open.alive += 1

        def __del__(self):
            Open.alive -= 1

    def inner():
        one = Open()
        raise KeyError(id(one))

    def outer():
        another = Open()
        try:
            inner()
        except KeyError as error:
            raise ValueError(id(another)) from error

    try:
        outer()
    except ValueError as error:
        assert Open.alive == 2
        free_locals(error)
        assert Open.alive == 0


def test_an_error_of_the_work_comes_with_its_lines_and_without_its_arrays():
    taken = []

    def work(progress):
        held_array = np.zeros(9)
        taken.append(sys.getrefcount(held_array))
        heartbeat()
        raise ZeroDivisionError("of the work")

    with pytest.raises(ZeroDivisionError, match="of the work") as caught:
        run_watched(work, "a file", lambda share: None)
    frames = [entry.frame for entry in caught.traceback]
    assert frames[-1].code.name == "work"
    assert "held_array" not in frames[-1].f_locals
