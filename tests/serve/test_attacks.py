"""What a hostile client, page, file, name server or web server tries, and what it gets."""

import base64
import http.server
import ipaddress
import itertools
import json
import logging
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from omniqa.serve import download as downloads
from omniqa.serve.download import checked_addresses, download, is_public
from omniqa.serve.errors import ApiError
from omniqa.serve.media import FileStore
from omniqa.serve.media_root import MediaRoot
from omniqa.serve.upload_folder import UploadFolder
from tests.conftest import ROOT
from tests.serve.conftest import chat, running, settings_for, until

TRAVERSALS = [
    "../secret.mp4", "inner/../../secret.mp4", "..", ".", "", "/", "//a.mp4", "a.mp4/", "./a.mp4", "inner//long.mp4",
    "link.mp4", "linked/secret.mp4", "linked/root/a.mp4", "inside.mp4", "inner", "a.mp4\0.txt", "..\\secret.mp4",
    "inner\\..\\..\\secret.mp4", "%2e%2e/secret.mp4", "~/secret.mp4", "/etc/passwd", "/proc/self/environ", "x/" * 20,
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_nothing_outside_the_media_root_is_read_and_no_link_is_followed(server, media_root, path):
    status, body = server.chat(path)
    assert status in (400, 404), body
    assert "secret" not in body["error"]["message"].replace(repr(path)[1:-1], "")
    with pytest.raises(ApiError), MediaRoot(media_root).open(path):
        pass


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "file:a.mp4", "concat:a.mp4|b.mp4", "pipe:0", "subfile:,a", "gopher://x/", "FILE:/x"]
)
def test_no_other_scheme_is_opened(server, media_root, url):
    status, body = server.chat(url)
    assert (status, body["error"]["code"]) == (400, "media")
    status, body = server.chat(str(media_root / "a.mp4"))
    assert status == 404


def test_paths_of_the_content_route_are_checked_alike(server):
    for path in ("../secret.mp4", "..%2fsecret.mp4", "%2e%2e/secret.mp4", "link.mp4", "linked/secret.mp4", "inner"):
        assert server.ask("GET", f"/v1/media/{path}")[0] == 404
    assert server.ask("GET", "/v1/media/a.mp4")[0] == 200
    assert server.ask("GET", "/page/../app.py")[0] == 404


def test_a_link_is_not_listed_and_a_hidden_file_neither(server):
    listed = json.loads(server.ask("GET", "/v1/media")[2])["data"]
    assert [entry["path"] for entry in listed] == ["a.mp4", "inner/long.mp4", "inner/sound.mp3"]


def test_a_file_that_becomes_a_link_while_it_is_open_changes_nothing(media_root, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "clip.mp4").write_bytes(b"mine")
    (tmp_path / "secret").write_bytes(b"secret")
    from omniqa.serve.media import path_of

    with MediaRoot(root).open("clip.mp4") as (file, _):
        (root / "clip.mp4").unlink()
        (root / "clip.mp4").symlink_to(tmp_path / "secret")
        if os.path.isdir("/proc/self/fd"):
            assert path_of(file).read_bytes() == b"mine"


def test_a_playlist_opens_no_other_file(server, media_root):
    secret = media_root.parent / "secret.mp4"
    for text in (f"#EXTM3U\n#EXTINF:1,\n{secret}\n", f"ffconcat version 1.0\nfile {secret}\n", f"v=0\nc={secret}\n"):
        content = base64.b64encode(text.encode()).decode()
        status, body = server.chat(f"data:video/mp4;base64,{content}")
        assert (status, body["error"]["code"]) == (400, "media")


# --- who may ask ---


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "", "a@b", "localhost.evil.example",
     "127.1", "2130706433", "0.0.0.0", "[::ffff:127.0.0.1]", "[::1", "localhost:99999", "localhost,evil.example",
     "localhost#.evil.example", "localhost/.evil.example", "evil.example.", "localhost\t.evil.example"],
)  # fmt: skip
def test_a_name_that_is_not_the_servers_is_refused(server, host):
    status, _, body = server.ask("GET", "/v1/models", headers={"host": host})
    assert (status, json.loads(body)["error"]["code"]) == (421, "host")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000", "localhost.", "localhost.:8000", "127.0.0.1:"]
)
def test_this_machines_own_names_are_the_servers(server, host):
    assert server.ask("GET", "/v1/models", headers={"host": host})[0] == 200


@pytest.mark.parametrize(
    "head", [b"GET /v1/models HTTP/1.0\r\n\r\n", b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n\r\n",
             b"GET http://localhost/v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n"],
)  # fmt: skip
def test_a_request_names_its_server_once(server, head):
    assert raw(server.port, head).split()[1] in (b"400", b"421")


def raw(port, sent):
    """The begin of what the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        return connection.recv(1000)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[bad", ""]
)
def test_pages_of_other_origins_are_refused(server, origin):
    status, headers, body = server.ask("POST", "/v1/chat/completions", chat("a.mp4"), {"origin": origin})
    assert (status, json.loads(body)["error"]["code"]) == (403, "origin")
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_the_servers_own_page_may_ask(server):
    assert server.ask("GET", "/v1/models", headers={"origin": server.base})[0] == 200
    status, headers, _ = server.ask("OPTIONS", "/v1/chat/completions", headers={"origin": server.base})
    assert (status, headers["access-control-allow-origin"]) == (405, None)


def test_only_the_whole_key_opens_anything_but_health_and_the_page(qa, media_root):
    key = "sk-0123456789abcdef"
    wrong = (None, "", "Bearer", f"Bearer {key[:-1]}e", f"Bearer t{key[1:]}", f"Bearer {key}x", f"Basic {key}",
             f"Bearer {key[1:]}", f"Bearer {key} {key}", f"Bearer {key.upper()}", "Bearer \xff")  # fmt: skip
    with running(qa, settings_for(media_root, api_key=key)) as client:
        for path in ("/v1/models", "/v1/files", "/v1/media", "/v1/media/a.mp4", "/metrics", "/v1/nothing"):
            for sent in wrong:
                status, headers, _ = client.ask("GET", path, headers={} if sent is None else {"authorization": sent})
                assert (status, headers["www-authenticate"]) == (401, "Bearer"), (path, sent)
        allowed = {"authorization": f"Bearer {key}"}
        assert client.ask("GET", "/v1/models", headers=allowed)[0] == 200
        assert client.chat("a.mp4", headers=allowed)[0] == 200
        for path in ("/health", "/", "/page/page.js"):
            assert client.ask("GET", path)[0] == 200


def test_keys_are_compared_in_constant_time(monkeypatch):
    pytest.importorskip("starlette", reason="needs what omniqa[serve] installs")
    from omniqa.serve import guard

    compared = []
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda one, other: compared.append((one, other)) or one == other)
    assert not guard.is_key("sk-abd", "sk-abc")
    assert guard.is_key("sk-abc", "sk-abc")
    assert compared == [(b"sk-abd", b"sk-abc"), (b"sk-abc", b"sk-abc")]


# --- bodies ---


def test_a_body_over_the_limit_is_refused_before_it_is_read(qa, media_root):
    with running(qa, settings_for(media_root, {"body_bytes": 1000, "upload_bytes": 5000})) as client:
        status, _, body = client.ask("POST", "/v1/chat/completions", b"x" * 1001)
        assert (status, json.loads(body)["error"]["code"]) == (413, "too_large")
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as said:  # a length, and nothing after it
            said.sendall(b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999999999\r\n\r\n")
            assert said.recv(100).startswith(b"HTTP/1.1 413")
        form = multipart(b"x" * 5001)
        status, _, body = client.ask("POST", "/v1/files", form[0], {"content-type": form[1]})
        assert (status, json.loads(body)["error"]["code"]) == (413, "too_large")
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as said:  # chunks, whose sum is not told
            said.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(3):
                said.sendall(b"1f4\r\n" + b"x" * 500 + b"\r\n")
            assert said.recv(100).startswith(b"HTTP/1.1 413")
        assert client.server.media.store.files() == []
        assert not list(client.server.media.store.folder.iterdir())


def connected(port):
    """A client's socket."""
    return socket.create_connection(("127.0.0.1", port), timeout=20)


REFUSED = [  # whose bodies are not read
    (413, b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3000000\r\n"),
    (413, b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3000000\r\n"),
    (421, b"POST /v1/files HTTP/1.1\r\nhost: elsewhere\r\ncontent-length: 3000000\r\n"),
    (403, b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\norigin: http://else.org\r\ncontent-length: 3000000\r\n"),
    (400, b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: none\r\n"),
]


@pytest.mark.parametrize(("status", "head"), REFUSED)
def test_a_refused_client_may_send_its_body_first_and_then_read_why(qa, media_root, status, head):
    """A connection that is closed with bytes unread is reset, and many clients then lose the response."""
    limits = {"body_bytes": 1000, "upload_bytes": 5000}
    with running(qa, settings_for(media_root, limits)) as client, connected(client.port) as sender:
        sender.sendall(head + b"\r\n")
        for _ in range(3):
            time.sleep(0.1)  # the response is there, and not read
            sender.sendall(b"x" * 1_000_000)
        assert sender.recv(100).startswith(b"HTTP/1.1 %d" % status)
        while sender.recv(100_000):
            pass


def test_a_refused_client_that_resets_its_connection_does_no_harm(qa, media_root, caplog):
    with running(qa, settings_for(media_root, {"body_bytes": 1000})) as client:
        for number in range(100):
            with connected(client.port) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sender.sendall(REFUSED[0][1] + b"\r\n" + b"x" * number)
                time.sleep(number % 10 / 2000)
        assert client.ask("GET", "/health")[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def send_slowly(sender):
    """Send for 20 seconds, unless the connection ends."""
    for _ in range(1000):
        sender.sendall(b"x")
        time.sleep(0.02)


def test_a_refused_client_that_goes_on_sending_is_closed(qa, media_root):
    limits = {"body_bytes": 1000, "linger_s": 0.2}
    with running(qa, settings_for(media_root, limits)) as client, connected(client.port) as sender:
        sender.sendall(REFUSED[0][1] + b"\r\n")
        with pytest.raises(ConnectionError):
            send_slowly(sender)


def test_what_all_open_requests_hold_is_bounded(qa, media_root):
    limits = {"body_bytes": 1000, "bodies_bytes": 1500}
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900\r\n\r\n"
    with running(qa, settings_for(media_root, limits)) as client:
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as first:
            first.sendall(head + b"x" * 800)
            until(lambda: client.server.app._bodies.bytes == 800)
            assert raw(client.port, head + b"x" * 800).startswith(b"HTTP/1.1 429")
            until(lambda: client.server.app._bodies.bytes == 800)
        until(lambda: client.server.app._bodies.bytes == 0)
        assert client.chat("a.mp4")[0] == 200
        assert client.server.app._bodies.bytes == 0


def test_a_client_that_reads_nothing_is_given_up(qa, tmp_path):
    content = random.Random(0).randbytes(30_000_000)  # more than all buffers between them
    (tmp_path / "large.mp4").write_bytes(content)
    with running(qa, settings_for(tmp_path, {"unread_s": 0.3})) as client:
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as deaf:
            deaf.sendall(b"GET /v1/media/large.mp4 HTTP/1.1\r\nhost: localhost\r\n\r\n")
            until(lambda: client.metrics('omniqa_requests_total{path="/v1/media",status="200"}'))
            until(lambda: not open_files(tmp_path / "large.mp4"))
            received = 0
            with suppress(ConnectionResetError):
                while piece := deaf.recv(2**20):
                    received += len(piece)
        assert received < len(content)
        assert client.ask("GET", "/v1/media/large.mp4")[2] == content


def open_files(path):
    """This process's open descriptors of a file."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    found = []
    for link in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{link}"))
    return [target for target in found if target == str(path)]


def multipart(content, name="clip.mp4"):
    """Body and content type of an upload."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"", "multipart/form-data; boundary=b"), (b"x", "multipart/form-data"), (b"a=b", "text/plain"),
     (b"--b\r\nbroken", "multipart/form-data; boundary=b"), (multipart(b"")[0], multipart(b"")[1])],
)  # fmt: skip
def test_what_is_no_upload_is_400(server, body, kind):
    assert server.ask("POST", "/v1/files", body, {"content-type": kind})[0] == 400


def test_an_uploads_name_is_no_path(server):
    body, kind = multipart(b"text", "../../etc/\x07passwd")
    status, _, answer = server.ask("POST", "/v1/files", body, {"content-type": kind})
    assert (status, json.loads(answer)["filename"]) == (200, "passwd")
    id = json.loads(answer)["id"]
    status, headers, content = server.ask("GET", f"/v1/files/{id}/content")
    assert (status, content, headers["content-type"]) == (200, b"text", "application/octet-stream")
    assert server.ask("DELETE", f"/v1/files/{id}")[0] == 200


@pytest.mark.parametrize("kind", ["headers", "body"])
def test_a_client_that_sends_a_byte_now_and_then_is_given_up(qa, media_root, kind):
    limits = {"header_s": 0.5, "body_grace_s": 0.5, "body_rate": 10_000}
    with running(qa, settings_for(media_root, limits)) as client:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n"
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as slow:
            slow.sendall(head if kind == "headers" else head + b"\r\n")
            slow.settimeout(0.1)
            answer, end = None, time.monotonic() + 15
            while answer is None:
                assert time.monotonic() < end
                try:
                    slow.sendall(b"a")
                    answer = slow.recv(100)
                except TimeoutError:
                    continue
                except OSError:
                    answer = b""
            assert answer.startswith(b"" if kind == "headers" else b"HTTP/1.1 408")
        assert client.chat("a.mp4")[0] == 200


def test_a_client_that_does_not_read_holds_nobody_up(qa, media_root):
    with running(qa, settings_for(media_root)) as client:
        request = json.dumps(chat("a.mp4", stream=True)).encode()
        with socket.create_connection(("127.0.0.1", client.port)) as deaf:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(request)}\r\n\r\n"
            deaf.sendall(head.encode() + request)
            assert client.chat("a.mp4")[0] == 200


KILLED = """
import os, signal
from omniqa.serve.upload_folder import UploadFolder
folder = UploadFolder()
(folder.content / "clip").write_bytes(b"content")
print(folder.content, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_server_left_is_deleted_at_the_next_start_and_nothing_else(tmp_path, monkeypatch):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    assert (killed.returncode, (left / "clip").read_bytes()) == (-signal.SIGKILL, b"content")
    others = tmp_path / "others"
    others.mkdir()
    (others / "kept").write_text("kept")
    (tmp_path / "omniqa-serve-link").symlink_to(others)
    (tmp_path / "omniqa-serve-file").write_text("kept")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    running_one = UploadFolder()
    (running_one.content / "clip").write_bytes(b"content")
    next_one = UploadFolder()
    assert not left.parent.exists()
    assert (running_one.content / "clip").read_bytes() == b"content"
    running_one.close()
    next_one.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["omniqa-serve-file", "omniqa-serve-link", "others"]
    assert (others / "kept").exists()


def test_uploads_give_way_to_newer_ones_but_not_while_they_are_read():
    store = FileStore(upload_bytes=100, stored_bytes=250)
    try:
        files = [store.add_file(f"{n}", [bytes([n]) * 100]) for n in range(2)]
        with store.used(files[0].digest) as path:
            third = store.add_file("2", [b"2" * 100])
            assert path.read_bytes() == b"\0" * 100
        assert {file.id for file in store.files()} == {files[0].id, third.id}
        with pytest.raises(ApiError, match="no file"):
            store.file(files[1].id)
        with pytest.raises(ApiError, match="larger than"):
            store.add([b"x" * 60, b"x" * 60])
        same = store.add_file("again", [b"2" * 100])
        store.delete(third.id)
        with store.used(same.digest) as path:
            assert path.read_bytes() == b"2" * 100
        assert len(list(store.folder.iterdir())) == 2
    finally:
        store.close()
    assert not store.folder.exists()


# --- media that are bombs ---


def png(width, height):
    """A PNG of a few bytes that claims to be so large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


def test_a_picture_that_claims_a_billion_pixels_is_refused(server):
    content = base64.b64encode(png(60_000, 60_000)).decode()
    status, body = server.chat(f"data:video/mp4;base64,{content}")
    assert (status, body["error"]["code"]) == (400, "media")


def test_a_clip_longer_than_the_server_takes_is_refused_before_it_is_decoded(qa, media_root):
    with running(qa, settings_for(media_root, {"clip_s": 3.0})) as client:
        status, body = client.chat("inner/long.mp4")
        assert (status, body["error"]["code"], "8 s long" in body["error"]["message"]) == (400, "too_long", True)
        assert client.chat("inner/long.mp4", clip={"start": 1, "end": 3})[0] == 200


def test_noise_and_broken_files_are_400(server, media_root):
    noise, whole = random.Random(0), (media_root / "a.mp4").read_bytes()
    for content in (noise.randbytes(5000), whole[: len(whole) // 3], b"\0" * 1000):
        encoded = base64.b64encode(content).decode()
        status, body = server.chat(f"data:video/mp4;base64,{encoded}")
        assert (status, body["error"]["code"]) == (400, "media")
    assert server.chat("a.mp4")[0] == 200


# --- downloads ---

PRIVATE = [
    "fec0::1", "5f00::1", "3fff::1", "4000::1", "192.88.99.1", "168.63.129.16", "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "fd00:ec2::254", "2002:a9fe:a9fe::1", "::ffff:0:7f00:1",
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "192.0.0.1", "::1", "::", "fe80::1", "fc00::1", "fd00::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::",
    "2001:db8::1", "2001:0:7f00:1::",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_known_as_such(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_known_as_such(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.fixture(scope="module")
def networked(qa, media_root):
    """A client of a server that opens addresses."""
    with running(qa, settings_for(media_root, allow_network=True)) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "2130706433", "0x7f.1", "0x7f000001",
     "017700000001", "0177.0.0.1", "0", "0.0.0.0", "[::]", "127.1", "LOCALHOST.", "169.254.169.254", "[fe80::1]",
     "[fec0::1]", "[64:ff9b::7f00:1]", "[::ffff:a9fe:a9fe]", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1",
     "user@127.0.0.1", "127.0.0.1%00.example.com", "\uff11\uff12\uff17.0.0.1"],
)  # fmt: skip
def test_this_machine_is_not_asked_whatever_it_is_called(networked, host):
    with web_server() as (port, seen):
        status, body = networked.chat(f"http://{host}:{port}/latest/meta-data/")
        assert (status, body["error"]["code"]) in ((403, "network"), (400, "network")), body
        assert not seen


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%1"])
def test_a_name_that_stands_for_this_machine_is_refused(monkeypatch, address):
    found = [(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]
    monkeypatch.setattr(downloads.socket, "getaddrinfo", lambda *given, **named: found)
    with pytest.raises(ApiError, match="not public"):
        checked_addresses("innocent.example", 80, [])


def test_without_leave_no_address_is_opened(server):
    status, body = server.chat("https://example.com/a.mp4")
    assert (status, body["error"]["code"]) == (400, "network")


@contextmanager
def web_server(answers=None):
    """A web server on this machine; what it was asked for."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers["host"]))
            status, headers, pieces = (answers or {}).get(self.path, (404, {}, []))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for piece in pieces:
                try:
                    self.wfile.write(piece)
                except OSError:
                    return

        def log_message(self, *given):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def whole(content):
    return 200, {"content-length": str(len(content))}, [content]


def test_an_allowed_host_is_downloaded_from_and_asked_about(qa, media_root):
    content = (media_root / "a.mp4").read_bytes()
    settings = settings_for(media_root, allow_network=True, allow_hosts=("localhost",))
    with web_server({"/a.mp4?x=1": whole(content)}) as (port, seen), running(qa, settings) as client:
        status, body = client.chat(f"http://localhost:{port}/a.mp4?x=1#part")
        assert (status, seen) == (200, [("/a.mp4?x=1", f"localhost:{port}")]), body
        status, body = client.chat(f"http://127.0.0.1:{port}/a.mp4")
        assert status == 403, "allowed is the name that was given, not whatever has the same address"


@pytest.mark.parametrize(
    ("location", "said"),
    [("http://127.0.0.1:{port}/secret", "not public"), ("http://[::1]:{port}/", "not public"),
     ("file:///etc/passwd", "only http"), ("ftp://localhost/", "only http"), ("/round", "redirects more than"),
     ("//127.0.0.1:{port}/", "not public"), ("http://0.0.0.0:{port}/", "not public"), ("", "redirects more than"),
     ("http://2130706433:{port}/", "not public"), ("data:video/mp4,x", "only http"),
     ("gopher://localhost/", "only http"),
     ("http://[::ffff:127.0.0.1]:{port}/", "not public"),
     ("http://user:word@localhost:{port}/", "without a user"), ("http://[bad/", "no address")],
)  # fmt: skip
def test_a_redirect_is_checked_like_the_first_address(location, said):
    answers = {}
    with web_server(answers) as (port, seen):
        answers["/round"] = (302, {"location": location.format(port=port)}, [])
        with pytest.raises(ApiError, match=said):
            b"".join(download(f"http://localhost:{port}/round", ["localhost"], 1000))
        assert {path for path, _ in seen} == {"/round"}


def test_the_connection_goes_to_the_address_that_was_checked_whatever_the_name_says_next(monkeypatch):
    with web_server({"/": whole(b"content")}) as (port, _):
        asked, connected = [], []
        resolve, connect = socket.getaddrinfo, socket.create_connection

        def rebinding(host, *given, **named):
            if host != "rebind.example":
                return resolve(host, *given, **named)
            asked.append(host)
            address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        def connecting(address, *given, **named):
            connected.append(address[0])
            return connect(("127.0.0.1", port), *given, **named)  # stands for the public server

        monkeypatch.setattr(downloads.socket, "getaddrinfo", rebinding)
        monkeypatch.setattr(downloads.socket, "create_connection", connecting)
        assert b"".join(download(f"http://rebind.example:{port}/", [], 1000)) == b"content"
        assert (asked, connected) == (["rebind.example"], ["93.184.216.34"])
        with pytest.raises(ApiError, match="not public"):
            b"".join(download(f"http://rebind.example:{port}/", [], 1000))
        assert connected == ["93.184.216.34"]


def test_an_address_that_can_not_be_reached_gives_way_to_the_hosts_next_one(monkeypatch):
    with web_server({"/": whole(b"content")}) as (port, _):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (9, 1)]
        monkeypatch.setattr(downloads.socket, "getaddrinfo", lambda *given, **named: found)
        assert b"".join(download(f"http://localhost:{port}/", ["localhost"], 1000)) == b"content"


def test_a_name_of_which_one_address_is_private_is_refused(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(downloads.socket, "getaddrinfo", lambda *given, **named: found)
    with pytest.raises(ApiError, match="not public"):
        checked_addresses("two.example", 80, [])


@pytest.mark.parametrize(
    ("answer", "said"),
    [((200, {"content-length": "5000"}, [b"x" * 5000]), "larger than"), ((200, {}, [b"x" * 600] * 5), "larger than"),
     ((200, {"content-length": "500"}, [b"x" * 100]), "broke off|IncompleteRead"), ((500, {}, []), "says 500"),
     ((200, {"content-length": "0"}, []), "empty")],
)  # fmt: skip
def test_a_server_that_sends_too_much_or_too_little_is_told_of(answer, said):
    store = FileStore(upload_bytes=1000, stored_bytes=5000)
    try:
        with web_server({"/": answer}) as (port, _), pytest.raises(ApiError, match=said):
            store.add(download(f"http://localhost:{port}/", ["localhost"], 1000))
        assert not list(store.folder.iterdir())
    finally:
        store.close()


def test_a_server_that_drips_is_given_up(monkeypatch):
    monkeypatch.setattr(downloads, "TOTAL_S", 0.4)

    def drip():
        for _ in range(100):
            time.sleep(0.05)
            yield b"x"

    with web_server({"/": (200, {}, drip())}) as (port, _), pytest.raises(ApiError, match="too slow"):
        b"".join(download(f"http://localhost:{port}/", ["localhost"], 1000))


@contextmanager
def dripping_server():
    """A server that never comes to the end of its response's head; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def drip():
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                while not ended.wait(0.02):
                    try:
                        connection.sendall(b"y")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def test_a_server_that_drips_its_head_is_given_up(monkeypatch):
    monkeypatch.setattr(downloads, "TOTAL_S", 0.4)
    with dripping_server() as port, pytest.raises(ApiError, match="too slow"):
        b"".join(download(f"http://localhost:{port}/", ["localhost"], 1000))


def test_a_client_that_goes_away_while_a_server_drips_its_head_is_noticed():
    asked = itertools.count()
    with dripping_server() as port, pytest.raises(ApiError, match="nobody"):
        b"".join(download(f"http://localhost:{port}/", ["localhost"], 1000, lambda: next(asked) < 5))


def test_slow_servers_hold_up_no_other_clip(qa, media_root, monkeypatch):
    release, waiting = threading.Event(), threading.Semaphore(0)

    def wait():
        yield b"x"
        waiting.release()
        release.wait(20)

    settings = settings_for(media_root, allow_network=True, allow_hosts=("localhost",))
    monkeypatch.setattr("omniqa.serve.media._DOWNLOADS_AT_ONCE", 2)
    answers = {f"/{number}": (200, {}, wait()) for number in range(2)}
    with web_server(answers) as (port, _), running(qa, settings) as client:
        threads = [
            threading.Thread(target=client.chat, args=(f"http://localhost:{port}/{number}",)) for number in range(2)
        ]
        for thread in threads:
            thread.start()
        try:
            assert all(waiting.acquire(timeout=20) for _ in threads)
            status, headers, _ = client.ask("POST", "/v1/chat/completions", chat(f"http://localhost:{port}/3"))
            assert (status, headers["retry-after"]) == (429, "1")
            assert client.chat("a.mp4")[0] == 200
        finally:
            release.set()
            for thread in threads:
                thread.join()


def test_a_download_whose_client_has_gone_ends():
    with (
        web_server({"/": (200, {}, (b"x" for _ in range(1000)))}) as (port, _),
        pytest.raises(ApiError, match="nobody"),
    ):
        b"".join(download(f"http://localhost:{port}/", ["localhost"], 10_000, lambda: False))


def test_a_web_server_behind_a_proxy_of_the_environment_is_asked_directly(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with web_server({"/": whole(b"content")}) as (port, _):
        assert b"".join(download(f"http://localhost:{port}/", ["localhost"], 1000)) == b"content"
