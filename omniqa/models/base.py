"""What every model family shares: what marks each token's kind, a clip's shape in tokens, and a prompt's layout."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

POSITIONS_PER_SECOND = 25  # one position id, and one audio token, is 40 ms
SECONDS_PER_CHUNK = 2
POSITIONS_PER_CHUNK = POSITIONS_PER_SECOND * SECONDS_PER_CHUNK

VIDEO, AUDIO, TEXT = 0, 1, 2  # the values of every `modality` array


@dataclass(frozen=True)
class MediaShape:
    """How many tokens the media have, and when.

    grid_times: seconds of each temporal grid (two frames) from the range's start, ascending.
    rows, cols: merged tokens of one grid, top to bottom and left to right.
    audio_tokens: 40 ms each, from the range's start.
    """

    grid_times: tuple[Fraction, ...]
    rows: int
    cols: int
    audio_tokens: int

    @property
    def grids(self) -> int:
        """Number of temporal grids."""
        return len(self.grid_times)

    @property
    def tokens_per_grid(self) -> int:
        """Tokens of one grid."""
        return self.rows * self.cols

    @property
    def video_tokens(self) -> int:
        """Tokens of all grids."""
        return self.grids * self.tokens_per_grid


@dataclass(frozen=True)
class TokenLayout:
    """The whole prompt, one row a token.

    ids: (N,) int64.
    positions: (3, N) int64, temporal, height and width.
    modality: (N,) int8, VIDEO, AUDIO or TEXT.
    chunk: (N,) int64, the token's two seconds from 0; -1 for text.
    time_s: (N,) float64, seconds from the range's start; NaN for text.
    media: the audio and video tokens' place; they stand together.
    question: the user's words' place. The query span is everything after `media`.
    shape: what the media are.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    modality: NDArray[np.int8]
    chunk: NDArray[np.int64]
    time_s: NDArray[np.float64]
    media: slice
    question: slice
    shape: MediaShape

    @property
    def prompt(self) -> slice:
        """The query span: every token after the last audio or video token."""
        return slice(self.media.stop, len(self.ids))

    @property
    def next_position(self) -> int:
        """Position of the first generated token, the same on all three axes."""
        return int(self.positions.max()) + 1
