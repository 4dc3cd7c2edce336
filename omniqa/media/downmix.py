"""Many channels of sound made one: BS.775's mix above stereo, the mean of stereo, one channel where two cancel."""

from dataclasses import dataclass, field
from functools import lru_cache

import av
import numpy as np

from omniqa.media.container import is_damage

_STEREO = 2
_PROBE_RATE = 48_000
_PROBE_SAMPLES = 64  # more than any layout has channels
_MOST_CHANNELS = 64
# Two channels cancel if their mean is this much weaker than the weaker of them. Channels that have nothing in common
# give a ratio of 0.7, a wide mix 0.3 or so, a phase turned round under lossy coding 0.05 at most.
_CANCELLED = 0.25
_SOUNDING = 10 ** (-60 / 20)  # root mean square of a second that counts: weaker ones hold noise, not speech
# Of the seconds that count, from which on the channels are said to cancel: stereo recordings have single such seconds.
_CANCELLED_SHARE = 0.5

CANCELLED_NOTE = "The two channels of the sound cancel each other; omniqa takes one of them."


@lru_cache(maxsize=64)
def mono_gains(layout: str, channels: int) -> tuple[float, ...]:
    """What each channel counts for in the mono sum.

    For up to two channels, the mean of those that are heard. Above, FFmpeg's gains of ITU-R BS.775: centre 1, left and
    right 0.707, each surround 0.5, LFE 0. Channels whose places are unknown are taken in FFmpeg's usual order.

    Args:
        layout: FFmpeg's name of the layout.
        channels: their number.

    Returns:
        As many factors as there are channels.
    """
    even = (1 / channels,) * channels
    if layout == "stereo" or channels == 1 or channels > _MOST_CHANNELS:
        return even
    gains = _resampler_gains(layout, channels)
    total = sum(gains)
    if not total > 0:
        return even
    return tuple(gain / total for gain in gains) if channels <= _STEREO else gains


def _resampler_gains(layout: str, channels: int) -> tuple[float, ...]:
    """The factors that swresample uses, read off its answer to one impulse on each channel; empty if it has none."""
    impulses = np.zeros((_PROBE_SAMPLES, channels), np.float32)
    np.fill_diagonal(impulses, 1)
    try:
        frame = av.AudioFrame.from_ndarray(impulses.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = _PROBE_RATE
        mixed = av.AudioResampler(format="flt", layout="mono", rate=_PROBE_RATE).resample(frame)
    except (av.error.FFmpegError, ValueError) as error:
        if not is_damage(error):
            raise
        return ()  # a layout that it can't mix, such as ambisonics
    return tuple(float(gain) for gain in mixed[0].to_ndarray()[0, :channels])


@dataclass
class Downmix:
    """Mixes the blocks of one stream to mono and watches, second by second, whether two channels cancel.

    Attributes:
        channel: of two, the one to be taken instead of their mean; None takes the mean.
        surround: whether a block had more than two channels: only then may the sum exceed full scale.
    """

    channel: int | None = None
    surround: bool = False
    _power: np.ndarray = field(default_factory=lambda: np.zeros(3))  # left, right, mean: sums of squares of this second
    _total: np.ndarray = field(default_factory=lambda: np.zeros(2))
    _samples: int = 0
    _sounding: int = 0
    _cancelled: int = 0

    def mix(self, samples: np.ndarray, layout: str, rate: int) -> np.ndarray:
        """One block as mono.

        Args:
            samples: float32, shape (channels, n), full scale -1 to 1.
            layout: FFmpeg's name of the channels' layout.
            rate: in Hz.

        Returns:
            float32, shape (n,).
        """
        channels = len(samples)
        gains = mono_gains(layout, channels)
        self.surround |= channels > _STEREO
        if channels == _STEREO and self.channel is not None:
            return samples[self.channel]
        if len(set(gains)) == 1:
            mono = samples.mean(axis=0, dtype=np.float32)
        else:
            mono = np.asarray(gains, np.float32) @ samples
        if channels == _STEREO and gains[0] == gains[1]:
            self._watch(samples, mono, rate)
        return mono

    def cancelling_channel(self) -> int | None:
        """The stronger of two channels if they cancel over what has been mixed, else None."""
        self._close_second()
        if not self._cancelled or self._cancelled < _CANCELLED_SHARE * self._sounding:
            return None
        return int(self._total[1] > self._total[0])

    def _watch(self, samples: np.ndarray, mono: np.ndarray, rate: int) -> None:
        self._power += [np.dot(channel, channel) for channel in (*samples, mono)]
        self._samples += len(mono)
        if self._samples >= rate:
            self._close_second()

    def _close_second(self) -> None:
        if not self._samples:
            return
        left, right, mean = np.sqrt(self._power / self._samples)
        self._total += self._power[:2]
        weaker = min(left, right)
        if max(left, right) > _SOUNDING:
            self._sounding += 1
            self._cancelled += bool(weaker > _SOUNDING and mean < _CANCELLED * weaker)
        self._power[:], self._samples = 0, 0


def within_full_scale(waveform: np.ndarray) -> np.ndarray:
    """The waveform itself, made quieter in place where its peak exceeds 1: the sum of many channels may."""
    peak = max(float(waveform.max(initial=0)), -float(waveform.min(initial=0)))
    if peak > 1:
        waveform /= peak
    return waveform
