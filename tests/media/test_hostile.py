"""Media made to break things: a clip or one sentence comes out, and nothing else is opened."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omniqa.errors import MediaError
from omniqa.media.access import Access
from omniqa.media.clip import ClipOptions, sample
from omniqa.media.probe import probe
from tests.cli.conftest import ask, omniqa  # noqa: F401 (fixtures)
from tests.media import cases
from tests.media.clips import Audio, Video, grey, index_of, tone, write_clip

SMALL = {"min_pixels": 784, "max_pixels": 4 * 784}
QUICK = ("--max-pixels", 4 * 784, "--fps", 1, "--max-new-tokens", 1)


def sampled(path, **options):
    return sample(path, ClipOptions(**SMALL | options))


def kept_promise(path):
    """A clip with something in it, or None where it was refused as it should be."""
    try:
        clip, refusal = sampled(path), None
    except MediaError as error:
        clip, refusal = None, str(error)
    if clip is None:
        assert path.name in refusal
        assert refusal.isprintable()
        return None
    assert len(clip.frames) or len(clip.waveform)
    assert np.isfinite(clip.waveform).all()
    assert len(clip.frames) == len(clip.frame_times)
    return clip


@pytest.mark.parametrize("name", cases.REFUSED)
def test_what_can_not_be_used_is_refused_in_one_sentence(tmp_path, name):
    assert kept_promise(cases.REFUSED[name](tmp_path / "case")) is None


@pytest.mark.parametrize("name", [name for name in cases.TAKEN if name != "8K"])
def test_what_can_be_used_is_used(tmp_path, name):
    assert kept_promise(cases.TAKEN[name](tmp_path / "case")) is not None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_a_file_cut_at_any_tenth_keeps_the_promise(tmp_path, suffix):
    heard = []
    for tenths in range(1, 11):
        clip = kept_promise(cases.truncated(tmp_path / "case", tenths, suffix))
        heard.append(0 if clip is None else len(clip.frames))
    assert heard == sorted(heard)
    assert heard[-1] >= 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Small files of many kinds, as bytes, and a folder for their damaged copies."""
    folder = tmp_path_factory.mktemp("fuzz")
    frames, sound = [grey(k) for k in range(6)], tone(0.2)
    mpeg4 = Video(frames, **cases.MPEG4)
    files = [
        write_clip(folder / "a.mp4", Video(frames), Audio(sound)),
        write_clip(folder / "b.mp4", Video(frames), Audio(sound), movflags="frag_keyframe+empty_moov"),
        write_clip(folder / "a.mkv", Video(frames), Audio(sound, codec="flac")),
        write_clip(folder / "a.ts", Video(frames), Audio(sound)),
        write_clip(folder / "a.avi", mpeg4, Audio(sound, codec="libmp3lame")),
        write_clip(folder / "a.mov", Video(frames, codec="png", pix_fmt="rgb24"), Audio(sound, codec="pcm_s16le")),
        cases.picture(folder / "a", ".gif", frames=frames, codec="gif", pix_fmt="rgb8"),
        write_clip(folder / "a.wav", audio=Audio(sound, codec="pcm_s16le")),
        write_clip(folder / "a.mp3", audio=Audio(sound, codec="libmp3lame")),
    ]
    return folder, {path.name: path.read_bytes() for path in files}


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_flipped_bits_keep_the_promise(whole, data):
    folder, files = whole
    name = data.draw(st.sampled_from(sorted(files)))
    spoilt = bytearray(files[name])
    reach = data.draw(st.sampled_from([64, 1024, len(spoilt)]))  # headers are hit more often than their share
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, min(reach, len(spoilt)) - 1))
        spoilt[-at if data.draw(st.booleans()) else at] ^= 1 << data.draw(st.integers(0, 7))
    path = folder / f"spoilt-{name}"
    path.write_bytes(spoilt)
    kept_promise(path)


def test_damaged_packets_are_counted_in_the_warnings(tmp_path):
    clip = sampled(cases.damaged(tmp_path / "a"))
    assert len(clip.frames) == 4
    assert any("Damaged audio packets left out: 4." in warning for warning in clip.warnings)
    assert any("Damaged video packets left out" in warning for warning in clip.warnings)


@pytest.mark.parametrize("claim", ["12 days", "2 billion frames", "a picture of 1 billion pixels"])
def test_a_header_that_lies_does_not_change_what_is_taken(tmp_path, claim):
    clip = sampled(cases.TAKEN[f"header claims {claim}"](tmp_path / "a"))
    assert float(clip.audio_seconds) == pytest.approx(2, abs=0.1)
    assert [index_of(frame) for frame in clip.frames[:4]] == [0, 12, 25, 37]


@pytest.mark.parametrize("leap", ["2 hours", "a year"])
def test_a_leap_in_the_timestamps_is_not_filled_with_silence(tmp_path, leap):
    clip = sampled(cases.TAKEN[f"timestamps leap by {leap}"](tmp_path / "a"))
    assert float(clip.audio_seconds) == pytest.approx(1, abs=0.01), "both halves are heard, one after the other"
    assert any("clock jumps once" in warning for warning in clip.warnings)


@pytest.fixture
def server():
    """The address of a server on this machine, and the paths it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{target}'\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
ASX = '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>'
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011" '
    'type="static"><Period><AdaptationSet><Representation id="1"><BaseURL>{target}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>"
)
TARGETS = ["{server}/a.ts", "secret.mp4", "file:{folder}/secret.mp4", "subfile,,start,0,end,0,,:{folder}/secret.mp4",
           "concat:{folder}/secret.mp4", "data:video/mp4;base64,AAAA"]  # fmt: skip


@pytest.mark.parametrize("suffix", [".m3u8", ".mp4", ".ffconcat", ".mpd", ".sdp"])
@pytest.mark.parametrize("playlist", [HLS, CONCAT, SDP, ASX, MPD])
def test_no_playlist_is_followed(tmp_path, server, playlist, suffix):
    address, asked = server
    cases.ordinary(tmp_path / "secret")
    path = tmp_path / f"list{suffix}"
    for target in TARGETS:
        path.write_text(playlist.format(target=target.format(server=address, folder=tmp_path)))
        with pytest.raises(MediaError, match="list"):
            sampled(path)
    assert asked == []


def test_an_address_is_opened_only_where_that_is_allowed(tmp_path, server):
    address, asked = server
    path = tmp_path / "list.m3u8"
    path.write_text(HLS.format(target=f"{address}/a.ts"))
    for video in (f"{address}/b.mp4", path):
        with pytest.raises(MediaError):
            probe(video)
    assert asked == []
    for video in (f"{address}/b.mp4", path):
        with pytest.raises(MediaError):
            probe(video, Access(allow_network=True))
    assert {"/a.ts", "/b.mp4"} <= set(asked)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", "/dev/zero", tmp_path / "a\0b.mp4"):
        with pytest.raises(MediaError, match=r"regular file|not found"):
            probe(path)


CLI_CASES = {
    "empty": cases.REFUSED["empty"],
    "text named .mp4": cases.REFUSED["text named .mp4"],
    "playlist": cases.REFUSED["playlist (concat) named .mp4"],
    "sound at 4 GHz": cases.REFUSED["sound at 4 GHz"],
    "cut": cases.TAKEN["cut at 5/10"],
    "damaged": cases.damaged,
    "claims 12 days": cases.TAKEN["header claims 12 days"],
    "GIF": cases.TAKEN["GIF"],
}


@pytest.mark.parametrize("name", CLI_CASES)
def test_the_command_ends_with_0_or_3_and_one_line_and_writes_nothing(ask, tmp_path, monkeypatch, name):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    path = CLI_CASES[name](tmp_path / "case")
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    code, out, err = ask(path, "What is seen?", *QUICK)
    assert code == (3 if CLI_CASES[name] in cases.REFUSED.values() else 0), err
    assert "Traceback" not in err
    if code:
        assert (out, len(err.splitlines())) == ("", 1)
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


def test_the_command_reads_a_named_pipe(ask, tmp_path):  # noqa: F811
    pipe, data = tmp_path / "pipe", cases.ordinary(tmp_path / "a").read_bytes()
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    code, _, err = ask(pipe, "What is seen?", *QUICK)
    writer.join(10)
    assert code == 0, err


def test_the_command_lists_the_tracks(ask, tmp_path):  # noqa: F811
    path = cases.tracks(tmp_path / "a")
    assert ask(path, "What?", "--audio-track", 2, *QUICK)[0] == 0
    code, _, err = ask(path, "What?", "--audio-track", 9)
    assert code == 3
    assert "It has 1 (pcm_s16le" in err
    assert ask(path, "What?", "--audio-track", 0)[0] == 2


def test_nothing_but_the_file_is_opened_by_the_process(tmp_path):
    """Seen from outside, where there is strace: of the folder, only the playlist itself is opened."""
    strace = next((f"{d}/strace" for d in os.environ["PATH"].split(":") if os.access(f"{d}/strace", os.X_OK)), None)
    if strace is None:
        pytest.skip("strace is not here")
    cases.ordinary(tmp_path / "secret")
    path = cases.REFUSED["playlist (concat) named .mp4"](tmp_path / "list")
    code = "import sys; from omniqa.media.probe import probe; probe(sys.argv[1])"
    log = tmp_path / "log"
    call = [strace, "-f", "-e", "trace=openat,open,connect", "-o", log, sys.executable, "-c", code, path]
    done = subprocess.run(call, capture_output=True, text=True)
    if "ptrace" in done.stderr:
        pytest.skip("this machine does not allow strace")
    assert "MediaError" in done.stderr
    traced = log.read_text()
    assert "list.mp4" in traced
    assert "secret.mp4" not in traced
