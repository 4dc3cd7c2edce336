import subprocess
import sys

import numpy as np

from tests.media.clips import Audio, Video, write_clip

MEASURE = """
import sys
from omniqa.media.clip import ClipOptions, sample
from omniqa.pipeline.stats import peak_rss_bytes
clip = sample(sys.argv[1], ClipOptions(min_pixels=28 * 28, max_pixels=64 * 28 * 28))
print(peak_rss_bytes(), clip.frames.nbytes + clip.waveform.nbytes)
"""
ALLOWANCE = 8 * 2**20  # a file's index grows, too


def long_clip(path, seconds, rate=1):
    """A small picture and one channel of 44.1 kHz sound."""
    frames = [np.full((240, 320, 3), 90, np.uint8)] * (seconds * rate)
    sound = np.full(seconds * 44100, 0.1, np.float32)
    return write_clip(path, Video(frames, rate, codec="mpeg4"), Audio(sound, codec="pcm_s16le"))


def peak_and_kept(path):
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


def test_a_long_clip_takes_no_more_memory_than_what_is_kept_of_it(tmp_path):
    """Held decoded, ten minutes more would take 130 MB more of picture and 105 MB of sound.

    Up to some minutes the heap grows towards what one clip needs, however long it is.
    """
    short_peak, short_kept = peak_and_kept(long_clip(tmp_path / "short.mkv", 600))
    long_peak, long_kept = peak_and_kept(long_clip(tmp_path / "long.mkv", 1200))
    assert long_peak - short_peak <= long_kept - short_kept + ALLOWANCE
