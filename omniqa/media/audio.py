"""The sound as the model hears it: 16 kHz, mono, on the file's clock, resampled while it is decoded."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from functools import partial
from itertools import chain
from math import ceil
from pathlib import Path

import av
import numpy as np

from omniqa.errors import MediaError, UsageError
from omniqa.media.access import CHANNELS, SAMPLE_RATES, SILENCE_SECONDS, SOUND_SECONDS, Access
from omniqa.media.container import Damage, Timed, open_media, picture_seconds, timed_frames
from omniqa.media.downmix import Downmix, within_full_scale
from omniqa.media.probe import MediaInfo, opening

SAMPLE_RATE = 16_000

# Timestamps in Matroska are whole milliseconds, and clocks drift: less than this is no gap but rounding.
_GAP = Fraction(1, 10)
_FIRST_SAMPLES = 3600 * SAMPLE_RATE
_SILENCE_AT_LEAST = 10  # seconds that are filled in, whatever is beside them
_TAIL = Fraction(1, 10)  # read beyond the end, for the resampler's filter to see what follows the last sample


def read_audio(
    source: MediaInfo | str | Path, start: Fraction, end: Fraction, damage: Damage | None = None
) -> np.ndarray:
    """The sound from `start` to `end`, or to its own end where that is earlier; nothing is added after it.

    Args:
        source: the media file.
        start: in seconds on the file's clock.
        end: likewise.
        damage: takes down what could not be decoded.

    Returns:
        float32, shape (n,), 16 kHz mono; sample 0 is at `start`. A stream that begins later is preceded by zeros,
        and gaps of more than 0.1 s in the timestamps are filled with them. Empty where the range holds no sound.

    Raises:
        MediaError: the file can't be opened, or has no audio stream, or one of a rate that is no sound's, or of more
            than 64 channels.
    """
    return mixed_audio(source, start, end, damage)[0]


def mixed_audio(
    source: MediaInfo | str | Path,
    start: Fraction,
    end: Fraction,
    damage: Damage | None = None,
    report: Callable[[int], None] = lambda samples: None,
) -> tuple[np.ndarray, bool]:
    """Like `read_audio`; also says whether two channels cancel, so that only one of them was taken.

    Whether they cancel is known at the end of the range; the sound is then decoded a second time.

    Args:
        source: the media file.
        start: in seconds on the file's clock.
        end: likewise.
        damage: takes down what could not be decoded.
        report: called with the number of samples done.

    Raises:
        MediaError: as `read_audio` does; and if the range holds more than 24 hours of sound.
    """
    end = min(end, start + SOUND_SECONDS + Fraction(1, SAMPLE_RATE))  # one sample more than may be: so that it shows
    most, mix = ceil((end - start) * SAMPLE_RATE), Downmix()
    waveform = gather(_counted(stream_audio(source, start, end, damage, mix), report), most)
    if len(waveform) > SOUND_SECONDS * SAMPLE_RATE:
        raise MediaError(
            f"The sound is longer than {SOUND_SECONDS // 3600} h. Take a shorter range, or the picture alone."
        )
    channel = mix.cancelling_channel()
    if channel is not None:
        # The damage has been counted already.
        waveform = gather(stream_audio(source, start, end, None, Downmix(channel)), most)
    return (within_full_scale(waveform) if mix.surround else waveform), channel is not None


def _counted(blocks: Iterable[np.ndarray], report: Callable[[int], None]) -> Iterator[np.ndarray]:
    done = 0
    for block in blocks:
        done += len(block)
        report(done)
        yield block


def stream_audio(
    source: MediaInfo | str | Path,
    start: Fraction,
    end: Fraction,
    damage: Damage | None = None,
    mix: Downmix | None = None,
) -> Iterator[np.ndarray]:
    """Like `read_audio`, piece by piece: float32 arrays that follow each other, in bounded memory.

    `mix` makes the channels one. A sum of more than two may exceed 1.
    """
    path, access, clock = opening(source)
    left = ceil((end - start) * SAMPLE_RATE)
    damage, mix = damage if damage is not None else Damage(), mix or Downmix()
    with closing(timed_frames(path, "audio", start, damage, access, clock)) as frames:
        first = next(frames, None)
        if first is None:
            return
        rate, channels = first.frame.sample_rate, first.frame.layout.nb_channels
        if rate not in SAMPLE_RATES:
            raise MediaError(f"Sound of {rate} samples a second can't be used.")
        if channels > CHANNELS:
            raise MediaError(f"Sound of {channels} channels can't be used; at most {CHANNELS} are taken.")
        silence = _Silence(rate, partial(_picture_seconds, path, access))
        placed = _placed(chain([first], frames), rate, (start, end + _TAIL), silence, damage, mix)
        for block in _resampled(placed, rate):
            yield block[:left]
            left -= len(block)
            if left <= 0:
                return


def gather(blocks: Iterable[np.ndarray], limit: int) -> np.ndarray:
    """Blocks of float32 samples, `limit` of them at most, as one array (n,), without a second copy."""
    # Memory is taken as it is written to. Beyond an hour it grows with what comes: `limit` is what a header says, and
    # may be any number; arrays of that size grow by remapping, not by copying.
    samples, n = np.empty(min(limit, _FIRST_SAMPLES), np.float32), 0
    for block in blocks:
        if n + len(block) > len(samples):
            samples.resize(min(limit, (n + len(block)) * 9 // 8), refcheck=False)
        samples[n : n + len(block)] = block
        n += len(block)
    samples.resize(n, refcheck=False)
    return samples


def resample_array(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """A waveform from Python as the model hears it.

    Args:
        waveform: shape (n,) or (channels, n); floats in -1 to 1, or integers of which the full range is that.
        sample_rate: of the waveform, in Hz.

    Returns:
        float32, shape (ceil(n * 16000 / sample_rate),), 16 kHz mono.

    Raises:
        UsageError: the shape or the rate makes no sense, or the sound is longer than 24 hours.
    """
    if waveform.ndim not in (1, 2) or not SAMPLE_RATES.start <= sample_rate < SAMPLE_RATES.stop:
        raise UsageError(
            f"A waveform is (n,) or (channels, n) at a rate of {SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1}, not "
            f"{waveform.shape} at {sample_rate}."
        )
    tracks = np.atleast_2d(waveform)
    if len(tracks) > CHANNELS or tracks.shape[1] > SOUND_SECONDS * sample_rate:
        raise UsageError(
            f"A waveform has at most {CHANNELS} channels and {SOUND_SECONDS // 3600} h, not {len(tracks)} and "
            f"{tracks.shape[1] / sample_rate / 3600:.3g} h. Its shape is (channels, n)."
        )
    mono = _floats(tracks).mean(axis=0, dtype=np.float32)
    if sample_rate == SAMPLE_RATE or not len(mono):
        return mono
    import librosa

    return librosa.resample(mono, orig_sr=sample_rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")


def _floats(samples: np.ndarray) -> np.ndarray:
    """(channels, n) of any sample type, to floats in -1 to 1."""
    if samples.dtype.kind == "u":
        samples = samples.astype(np.float32) - (zero := 1 << 8 * samples.itemsize - 1)
        samples /= zero
    elif samples.dtype.kind == "i":
        samples = samples / np.float32(1 << 8 * samples.itemsize - 1)
    return samples


def _frame_mono(frame: av.AudioFrame, rate: int, mix: Downmix) -> np.ndarray:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    samples = mix.mix(np.asarray(_floats(samples), np.float32), frame.layout.name, frame.sample_rate)
    if frame.sample_rate == rate:
        return samples
    # A broadcast may change its rate on the way; piece by piece is good enough for what is rare.
    import soxr

    return soxr.resample(samples, frame.sample_rate, rate)


def _picture_seconds(path: str | Path, access: Access, enough: Fraction) -> Fraction:
    with open_media(path, access) as container:
        return picture_seconds(container, enough)


class _Silence:
    """How much silence may be filled in, which only timestamps claim: an hour, and no more than there is beside it.

    That is 10 s, twice the sound so far, and as long as pictures are shown. More would let a few packets, whose times
    lie far apart, cost as much as hours of sound.

    Args:
        rate: samples a second.
        picture: for how many seconds pictures are shown, counted up to the number that it is given.
    """

    def __init__(self, rate: int, picture: Callable[[Fraction], Fraction]) -> None:
        self._rate, self._picture = rate, picture
        self._filled, self._most = 0, SILENCE_SECONDS * rate

    def room(self, gap: int, heard: int) -> bool:
        """Whether a gap of so many samples may be filled, after so many samples of sound and silence."""
        lacking = self._filled + gap - _SILENCE_AT_LEAST * self._rate - 2 * (heard - self._filled)
        if lacking > 0 and self._picture(Fraction(lacking, self._rate)) * self._rate < lacking:
            return False
        self._filled += gap
        return True

    @property
    def too_long(self) -> bool:
        """Whether more than the hour has been filled in."""
        return self._filled > self._most


def _placed(
    frames: Iterable[Timed],
    rate: int,
    span: tuple[Fraction, Fraction],
    silence: _Silence,
    damage: Damage,
    mix: Downmix,
) -> Iterator[np.ndarray]:
    """The frames' samples in a span, without gaps or overlaps: sample k is at its start + k / rate."""
    start, end = span
    limit, tolerance, written, closed = ceil((end - start) * rate), 0, 0, 0
    for time, _, frame, *_ in frames:
        if frame.sample_rate not in SAMPLE_RATES or frame.layout.nb_channels > CHANNELS:
            damage.packets += 1
            continue
        at, samples = round((time - start) * rate) - closed, _frame_mono(frame, rate, mix)
        if abs(at - written) <= tolerance:
            at = written
        else:
            tolerance = 0  # out of step: what is written next is placed exactly
        if at >= limit - closed:
            return
        if at > written and not silence.room(at - written, written):
            closed, at = closed + at - written, written
            damage.gaps_closed = Fraction(closed, rate)
        if at > written:
            if silence.too_long:
                damage.broken_off = f"its timestamps leave gaps of more than {SILENCE_SECONDS} s"
                return
            yield from _silence(at - written, rate)
            written = at
        samples = samples[written - at : limit - at]
        if len(samples):
            yield samples
            written += len(samples)
            tolerance = round(_GAP * rate)


def _silence(samples: int, rate: int) -> Iterator[np.ndarray]:
    """Zeros, at most a second at a time: a gap may last for hours."""
    for done in range(0, samples, rate):
        yield np.zeros(min(rate, samples - done), np.float32)


def _resampled(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """The same sound at 16 kHz; soxr's HQ, in a stream, is what `librosa.resample` does to the whole."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
