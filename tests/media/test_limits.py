"""The watch over decoding, pipes, and what is held at most."""

import os
import subprocess
import sys
import threading
import time
import wave

import numpy as np
import pytest

from omniqa.errors import MediaError, UsageError
from omniqa.media.access import PICTURE_PIXELS, decoder_threads
from omniqa.media.audio import gather, resample_array
from omniqa.media.clip import sample
from omniqa.media.container import Damage, open_media, packets
from omniqa.media.pipe import is_pipe, read_pipe, spool_to_tempfile
from omniqa.media.sampling import ClipOptions
from omniqa.media.watchdog import Abandoned, heartbeat, run_watched
from tests.media import cases
from tests.media.clips import Audio, tone, write_clip


def silent(share):
    pass


def sound(channels, seconds=2.0, rate=8000):
    return np.zeros((channels, round(seconds * rate)), np.float32)


def test_sound_has_at_most_64_channels(tmp_path):
    for channels in (64, 65):
        with wave.open(str(tmp_path / f"{channels}.wav"), "wb") as file:
            file.setparams((channels, 2, 8000, 0, "NONE", None))
            file.writeframes(bytes(2 * channels * 8000))
    assert len(sample(tmp_path / "64.wav").waveform) == 16_000
    with pytest.raises(MediaError, match="Sound of 65 channels can't be used; at most 64"):
        sample(tmp_path / "65.wav")


def test_sound_beyond_a_day_is_refused_by_what_is_there_and_not_by_what_a_header_says(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "long.wav", audio=Audio(tone(3.0, rate=16_000), 16_000, codec="pcm_s16le"))
    monkeypatch.setattr("omniqa.media.audio.SOUND_SECONDS", 2)
    monkeypatch.setattr("omniqa.media.clip.SOUND_SECONDS", 2)
    with pytest.raises(MediaError, match=r"The sound is longer than .* Take a shorter range, or the picture alone"):
        sample(path)
    assert len(sample(path, ClipOptions(end=2)).waveform) == 32_000


@pytest.mark.parametrize(
    ("waveform", "rate"),
    [(sound(1), 0), (sound(1), 999), (sound(1), 768_001), (sound(1), float("nan")), (sound(65), 8000),
     (sound(1).T, 8000), (np.zeros((1, 1, 1)), 8000), (np.broadcast_to(np.float32(0), 86_401_000), 1000)],
)  # fmt: skip
def test_a_waveform_beyond_the_limits_is_refused(waveform, rate):
    with pytest.raises(UsageError, match="A waveform"):
        resample_array(waveform, rate)


def test_work_that_stands_still_is_given_up_and_ends_at_its_next_beat():
    ended, released = [], threading.Event()

    def stuck(progress):
        released.wait()
        try:
            heartbeat()
        except Abandoned:
            ended.append(True)
            raise

    with pytest.raises(MediaError, match=r"clip\.mp4 was given up"):
        run_watched(stuck, "clip.mp4", silent, stall=0.5)
    released.set()
    for _ in range(100):
        if ended:
            return
        time.sleep(0.02)
    pytest.fail("the thread went on")


def test_slow_work_that_goes_on_is_left_alone():
    def slow(progress):
        for _ in range(10):
            time.sleep(0.1)
            heartbeat()
        return 7

    assert run_watched(slow, "clip.mp4", silent, stall=0.5) == 7


def test_errors_and_progress_come_through():
    seen = []

    def work(progress):
        progress(0.5)
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_watched(work, "clip.mp4", seen.append)
    assert seen == [0.5]


def test_a_beat_without_a_watch_is_nothing():
    heartbeat()


def test_a_caller_that_is_interrupted_ends_the_work():
    going = threading.Event()
    heartbeats = []

    def work(progress):
        progress(0.0)
        while True:
            time.sleep(0.01)
            heartbeats.append(heartbeat())
            going.set()

    def interrupt(share):
        going.wait()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_watched(work, "clip.mp4", interrupt)
    time.sleep(0.1)
    count = len(heartbeats)
    time.sleep(0.1)
    assert len(heartbeats) == count


def test_a_pipe_that_nobody_writes_to_is_given_up(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert is_pipe(str(pipe))
    with pytest.raises(MediaError, match="nothing was written"):
        list(read_pipe(str(pipe), stall=0.2))
    assert not is_pipe(str(tmp_path))
    assert not is_pipe(str(tmp_path / "none"))
    assert not is_pipe("\0")


def test_what_is_kept_of_a_pipe_goes_when_it_is_done_with():
    with spool_to_tempfile([b"ab", b"c"], "stdin") as path:
        assert path.read_bytes() == b"abc"
    assert not path.exists()


def test_a_full_disk_is_one_sentence(monkeypatch):
    def pieces():
        yield b"x"
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(MediaError, match=r"stdin can't be kept in .*: No space left on device"),
        spool_to_tempfile(pieces(), "stdin"),
    ):
        pass


def test_more_packets_than_allowed_break_a_stream_off(tmp_path, monkeypatch):
    monkeypatch.setattr("omniqa.media.container.PACKETS", 10)
    damage = Damage()
    with open_media(cases.ordinary(tmp_path / "a")) as container:
        assert len(list(packets(container, container.streams.video[0], damage))) == 10
    assert damage.broken_off == "more than 10 packets"


def test_large_pictures_are_decoded_by_few_threads():
    assert decoder_threads(1920 * 1080) == 0
    assert decoder_threads(7680 * 4320) == 4
    assert decoder_threads(PICTURE_PIXELS) == 2
    assert decoder_threads(10 * PICTURE_PIXELS) == 1


def test_sound_takes_room_for_what_comes_and_not_for_what_is_claimed():
    blocks = [np.full(100, k, np.float32) for k in range(5)]
    assert np.array_equal(gather(blocks, 10**18), np.concatenate(blocks))
    assert gather(iter([]), 10**18).shape == (0,)


MEASURE = """
import sys
from omniqa.errors import MediaError
from omniqa.media.clip import ClipOptions, sample
from omniqa.pipeline.stats import peak_rss_bytes
before = peak_rss_bytes()
for path in sys.argv[1:]:
    try:
        sample(path, ClipOptions(min_pixels=784, max_pixels=3136))
    except MediaError:
        pass
print(peak_rss_bytes() - before)
"""


def test_bombs_take_no_more_memory_than_an_ordinary_clip(tmp_path):
    names = ["header claims 12 days", "header claims 2 billion frames", "timestamps leap by a year"]
    names += ["300 streams of 10 ms", "68 million pixels", "sound at 1 Hz", "sound at 4 GHz"]
    makers = cases.TAKEN | cases.REFUSED
    paths = [makers[name](tmp_path / str(k)) for k, name in enumerate(names)]
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100 * 2**20
