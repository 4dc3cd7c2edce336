"""Addresses, of a server on this machine: what FFmpeg opens by itself, what is copied first, and every way to fail."""

import http.server
import json
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from omniqa.cli.app import run
from omniqa.errors import MediaError
from omniqa.media.access import Access
from omniqa.media.download import held, place
from omniqa.media.probe import probe
from omniqa.media.sampling import ClipOptions
from tests.media import cases

PAGE = b"<!DOCTYPE html><html><body><video src='/plain'></video></body></html>"
OPEN = Access(allow_network=True)


class _Server(http.server.ThreadingHTTPServer):
    """Serves one clip in the ways that servers have; `asked` lists the paths that were asked for."""

    daemon_threads = True

    def __init__(self, clip: bytes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.clip, self.asked = clip, []

    def address(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.strip("/")
        self.server.asked.append(path)
        getattr(self, path.partition(".")[0])()

    def log_message(self, *_):
        pass

    def _send(self, body, kind="video/mp4", status=200, length=None, **headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # the client has seen enough
            self.close_connection = True

    def plain(self):
        self._send(self.server.clip, length=len(self.server.clip))

    def unsized(self):
        self._send(self.server.clip)

    def ranges(self):
        clip = self.server.clip
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-")).groups()
        last = min(int(last or len(clip)), len(clip) - 1)
        piece = clip[int(first) : last + 1]
        place = f"bytes {first}-{last}/{len(clip)}"
        self._send(piece, status=206, length=len(piece), Content_Range=place, Accept_Ranges="bytes")

    def norange(self):
        if "Range" in self.headers:
            self._send(b"", status=416, length=0)
        else:
            self.plain()

    def moved(self):
        self._send(b"", status=302, length=0, Location="/plain")

    def circle(self):
        self._send(b"", status=302, length=0, Location="/circle")

    def inside(self):
        self._send(b"", status=302, length=0, Location="file:///etc/hostname")

    def missing(self):
        self._send(b"no", status=404, length=2)

    def forbidden(self):
        self._send(b"no", status=403, length=2)

    def short(self):
        self._send(self.server.clip[:2000], length=len(self.server.clip))

    def endless(self):
        self._send(b"")
        try:
            while True:
                self.wfile.write(bytes(2**16))
        except OSError:
            pass

    def silent(self):
        time.sleep(2)

    def page(self):
        self._send(PAGE, kind="text/html; charset=utf-8", length=len(PAGE))

    def disguised(self):
        self._send(b"\n" + PAGE, kind="application/octet-stream", length=1 + len(PAGE))

    def list(self):
        body = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4,\nplain.mp4\n#EXT-X-ENDLIST\n"
        self._send(body, kind="text/plain", length=len(body))

    def nonsense(self):
        self.wfile.write(b"220 mail.example ready\r\n")
        self.close_connection = True


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of an ordinary clip on the loopback."""
    path = cases.ordinary(tmp_path_factory.mktemp("web") / "clip")
    server = _Server(Path(path).read_bytes())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The folder of temporary files, which is empty again in the end."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.glob("omniqa-*"))


@pytest.mark.parametrize("path", ["plain", "unsized", "norange", "moved"])
def test_without_byte_ranges_it_is_copied_once_and_the_copy_goes(server, copies, path):
    address = server.address(path)
    server.asked.clear()
    told = []
    with held(address, OPEN, lambda done, total: told.append((done, total))):
        (copy,) = copies.glob("*/*")
        assert copy.read_bytes() == server.clip
        assert probe(address, OPEN).path == address
        assert place(address) == f"file:{copy}"
    assert told[-1][0] == len(server.clip)
    assert len(server.asked) <= 2  # again after a redirect, or without the range
    assert place(address) == address


def test_with_byte_ranges_it_stays_with_ffmpeg(server, copies):
    address = server.address("ranges.mp4")
    with held(address, OPEN):
        assert place(address) == address
        assert not list(copies.iterdir())
    assert probe(address, OPEN).video is not None


def test_a_playlist_stays_with_ffmpeg(server, copies):
    address = server.address("list.m3u8")
    with held(address, OPEN):
        assert place(address) == address
        assert not list(copies.iterdir())


def test_a_probe_alone_copies_once_too(server, copies):
    server.asked.clear()
    probe(server.address("plain"), OPEN)
    assert server.asked == ["plain"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "404"),
        ("forbidden", "403"),
        ("circle", "redirect"),
        ("inside", "redirects"),
        ("short", r"broke off after 2000 of \d+ bytes"),
        ("nonsense", "HTTP"),
    ],
)
def test_what_servers_do_wrong_is_one_sentence(server, copies, path, message):
    with pytest.raises(MediaError, match=message) as raised:
        probe(server.address(path), OPEN)
    assert server.address(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_stream_without_end_is_given_up_at_the_limit(server, copies):
    with pytest.raises(MediaError, match="max_download"):
        probe(server.address("endless"), Access(allow_network=True, max_download=10**6))


def test_more_than_the_limit_is_refused_before_it_is_copied(server, copies):
    told = []
    limit = Access(allow_network=True, max_download=1000)
    with (
        pytest.raises(MediaError, match="max_download"),
        held(server.address("plain"), limit, lambda *of: told.append(of)),
    ):
        pass
    assert not told


def test_a_disk_without_room_is_one_sentence(server, copies, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(MediaError, match="TMPDIR"):
        probe(server.address("plain"), OPEN)


def test_a_server_that_says_nothing_is_given_up(server, copies, monkeypatch):
    monkeypatch.setattr("omniqa.media.fetch.STALL_SECONDS", 0.3)
    with pytest.raises(MediaError, match=r"0\.3 s"):
        probe(server.address("silent"), OPEN)


def test_nobody_there_is_one_sentence():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MediaError, match="refused"):
        probe(f"http://127.0.0.1:{port}/x.mp4", OPEN)


def test_a_server_without_tls_is_one_sentence(server):
    with pytest.raises(MediaError, match="can't be read"):
        probe(server.address("plain").replace("http:", "https:"), OPEN)


@pytest.mark.parametrize("path", ["page", "disguised"])
def test_a_page_needs_yt_dlp(server, copies, monkeypatch, path):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)  # as if it were not installed
    with pytest.raises(MediaError, match=r"omniqa\[url\]"):
        probe(server.address(path), OPEN)


def test_yt_dlp_finds_the_video_of_a_page(server, copies):
    pytest.importorskip("yt_dlp", reason="yt-dlp is not installed")
    with held(server.address("page"), OPEN):
        assert probe(server.address("page"), OPEN).video is not None


def test_where_yt_dlp_finds_nothing_is_one_sentence(server, copies, monkeypatch):
    pytest.importorskip("yt_dlp", reason="yt-dlp is not installed")
    monkeypatch.setattr(sys.modules[__name__], "PAGE", b"<!doctype html><p>No video here.</p>")
    with pytest.raises(MediaError, match="yt-dlp finds no video"):
        probe(server.address("page"), OPEN)


def test_without_the_flag_the_address_is_named_whole_in_every_command(server, capfd, tmp_path):
    address = server.address("plain")
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"video": address, "question": "What?", "answer": "x"}))
    server.asked.clear()
    for command in (["ask", address, "What?"], ["bench", address, "What?"], ["plan", address], ["eval", questions]):
        assert run([*map(str, command), "--model", "nano"]) == 3
        err = capfd.readouterr().err.splitlines()[-1]
        assert address in err
        assert "--allow-network" in err
    assert not server.asked


def test_every_command_takes_an_address(server, copies, capfd, tmp_path):
    pytest.importorskip("torch")
    address = server.address("plain")
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"video": address, "question": "What?", "answer": "x"}))
    short = ["--model", "nano", "--allow-network", "--max-frames", "4"]
    assert run(["plan", address, *short]) == 0
    for command in (["ask", address, "What?", "--json"], ["batch", address, "What?"]):
        server.asked.clear()
        assert run([*command, *short, "--max-new-tokens", "2"]) == 0
        assert json.loads(capfd.readouterr().out.splitlines()[-1])["video"] == address
        assert server.asked == ["plain"]
    assert run(["eval", str(questions), *short, "--max-new-tokens", "2"]) in (0, 6)
    assert "allow-network" not in capfd.readouterr().err
    bench = ["bench", address, "What?", "--method", "none", "--retention", "1", "--repeats", "1", "--warmup", "0"]
    assert run([*bench, *short, "--max-new-tokens", "2"]) == 0


def test_the_limit_tells_no_results_apart():
    assert ClipOptions(max_download=5).settings == ClipOptions().settings
