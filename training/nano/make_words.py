"""Makes words.npz, the bank of spoken words, with espeak-ng. Run once; its result is in the repository.

apt-get install espeak-ng
python -m training.nano.make_words
"""

import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import soxr

from omniqa import terminal
from omniqa.nano.words import BANK_RATE, PEAK, WORDS, compress

VOICES = ("en-us", "en-gb-scotland", "en-us+f2", "en-gb+f4")
WORDS_PER_MINUTE = (150, 210)
AUDIBLE = 0.02  # of the peak; what is softer at both ends is cut off, so that a word's times are those of its sound
BANK = Path(__file__).parent / "words.npz"


def main() -> None:
    """Speak every word in every voice and speed, and store all takes end to end."""
    takes = [(voice, speed) for voice in VOICES for speed in WORDS_PER_MINUTE]
    spoken = [_trimmed(_speak(word, voice, speed)) for word in WORDS for voice, speed in takes]
    ends = np.cumsum([len(samples) for samples in spoken]).reshape(len(WORDS), len(takes))
    np.savez_compressed(BANK, ends=ends.astype(np.int32), samples=compress(np.concatenate(spoken)))
    terminal.write(
        f"{BANK}: {ends.size} takes, {ends[-1, -1] / BANK_RATE:.1f} s, {BANK.stat().st_size / 1000:.0f} kB\n"
    )


def _speak(word: str, voice: str, speed: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "word.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-w", str(path), word], check=True)
        with wave.open(str(path)) as file:
            samples, rate = np.frombuffer(file.readframes(file.getnframes()), np.int16), file.getframerate()
    return soxr.resample(samples.astype(np.float32), rate, BANK_RATE)


def _trimmed(samples: np.ndarray) -> np.ndarray:
    samples = samples * (PEAK / np.abs(samples).max())
    audible = np.flatnonzero(np.abs(samples) > AUDIBLE * PEAK)
    return samples[audible[0] : audible[-1] + 1]


if __name__ == "__main__":
    main()
