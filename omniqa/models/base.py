"""The interface of a model family, and what all families share: modalities, a clip's shape, a prompt's layout.

Free of torch and numpy, since arguments are refused before either is imported. A further family is a folder beside
`qwen2_5_omni/` whose model has the members of `Model`; the table of docs/architecture.md says which file does what.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from omniqa.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

QUESTION_CHARACTERS = 20_000  # some 5,000 tokens of English: more would run for minutes on a CPU without a word
CONVERSATION_CHARACTERS = 200_000  # as many tokens as the decoder takes, and some more

VIDEO, AUDIO, TEXT = 0, 1, 2  # the values of every `modality` array

OWN_SYSTEM_TEXT = "{own}"  # in a PromptText's system message: the model's own text


@dataclass(frozen=True)
class Turn:
    """A question that was asked earlier in a conversation, and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class PromptText:
    """The words around a clip's tokens.

    Attributes:
        question: the user's words behind the media; in a conversation those of the last turn.
        before_media: the user's words in front of the media.
        system: the system message, in which OWN_SYSTEM_TEXT stands for the model's own. None gives none, so that the
            family's chat template decides what stands there.
        turns: what was asked and answered before, oldest first. They stand between the media and the question.
    """

    question: str
    before_media: str = ""
    system: str | None = OWN_SYSTEM_TEXT
    turns: tuple[Turn, ...] = ()

    @classmethod
    def of(cls, question: "str | PromptText") -> "PromptText":
        """A question alone is put with the model's own system message."""
        return cls(question) if isinstance(question, str) else question

    @property
    def opening(self) -> tuple[str | None, str]:
        """What decides the tokens in front of the media."""
        return self.system, self.before_media

    @property
    def questions(self) -> tuple[str, ...]:
        """The user's words of all turns, oldest first."""
        return *(turn.question for turn in self.turns), self.question


@dataclass(frozen=True)
class Geometry:
    """What a model family counts pictures, sound and time in.

    Attributes:
        patch: pixels a side of a patch.
        spatial_merge: patches a side of what becomes one token.
        temporal_patch: frames of one temporal grid.
        min_pixels: fewest of a frame; smaller frames are enlarged.
        max_pixels: most of a frame; larger frames are shrunk.
        positions_per_second: temporal position ids in a second.
        audio_tokens_per_second: audio tokens in a second.
        chunk_seconds: length of a chunk; the decoder's sequence, some methods and the evidence count in chunks.
    """

    patch: int
    spatial_merge: int
    temporal_patch: int
    min_pixels: int
    max_pixels: int
    positions_per_second: int
    audio_tokens_per_second: int
    chunk_seconds: int

    @property
    def token_pixels(self) -> int:
        """Pixels a side of what becomes one token: the sides of every frame are multiples of it."""
        return self.patch * self.spatial_merge

    @property
    def pixel_bounds(self) -> tuple[int, int]:
        """Fewest and most pixels of a frame."""
        return self.min_pixels, self.max_pixels


# Of the family that is loaded if no other is named, so that a clip can be sampled without a model (Qwen2.5-Omni).
STANDARD = Geometry(
    patch=14,
    spatial_merge=2,
    temporal_patch=2,
    min_pixels=128 * 28 * 28,
    max_pixels=768 * 28 * 28,
    positions_per_second=25,
    audio_tokens_per_second=25,
    chunk_seconds=2,
)


@dataclass(frozen=True)
class MediaShape:
    """How many tokens the media have, and when.

    Attributes:
        grid_times: seconds of each temporal grid (two frames) from the range's start, ascending.
        rows, cols: merged tokens of one grid, top to bottom and left to right.
        audio_tokens: one after the other, from the range's start.
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

    Attributes:
        ids: (N,) int64.
        positions: (3, N) int64, temporal, height and width.
        modality: (N,) int8, VIDEO, AUDIO or TEXT.
        chunk: (N,) int64, the token's chunk (`Geometry.chunk_seconds`), from 0; -1 for text.
        time_s: (N,) float64, seconds from the range's start; NaN for text.
        media: the audio and video tokens' place; they stand together.
        question: the user's words' place, in a conversation those of the last turn.
        shape: what the media are.
        earlier: how many tokens of earlier turns stand behind the media.
    """

    ids: "NDArray[np.int64]"
    positions: "NDArray[np.int64]"
    modality: "NDArray[np.int8]"
    chunk: "NDArray[np.int64]"
    time_s: "NDArray[np.float64]"
    media: slice
    question: slice
    shape: MediaShape
    earlier: int = 0

    @property
    def behind_media(self) -> slice:
        """Every token after the last audio or video token."""
        return slice(self.media.stop, len(self.ids))

    @property
    def prompt(self) -> slice:
        """The query span: every token after the last audio or video token that belongs to no earlier turn."""
        return slice(self.media.stop + self.earlier, len(self.ids))

    @property
    def next_position(self) -> int:
        """Position of the first generated token, the same on all three axes."""
        return int(self.positions.max()) + 1


class GridSink(Protocol):
    """Takes a clip's grids and encodes them.

    Attributes:
        grids: how many have come.
        grids_reused: how many of them equal an earlier one.
        tokens_reused: the share of all tokens that `reuse_static` took from an earlier grid.
        added: (k, n_V, d) what is added to the clip's video tokens before decoder layers 0 to k-1, once `finish` was
            called; None if the family adds nothing.
    """

    grids: int
    grids_reused: int
    added: "torch.Tensor | None"

    @property
    def tokens_reused(self) -> float: ...  # noqa: D102

    def push(self, frames: Any) -> None:
        """Take one grid: uint8 frames (temporal_patch, H, W, 3)."""

    def finish(self) -> "torch.Tensor":
        """(grids, tokens_per_grid, d) embeddings of all grids that were not handed on; at least one came."""


class AttendedSink(GridSink, Protocol):
    """A GridSink that also works out what each video token receives in the vision encoder's last block.

    Attributes:
        attention: (n_V,) float32, once `finish` was called.
    """

    attention: "torch.Tensor | None"


class TakeGrids(Protocol):
    """Is handed a clip's embeddings, whole windows of a VisionRule at a time, in order."""

    def __call__(self, tokens: "torch.Tensor", keep: "torch.Tensor | None" = None) -> None:
        """Take some windows' tokens.

        Args:
            tokens: (grids, tokens_per_grid, d) if the rule is still to be applied, else (m, d) what it kept.
            keep: (grids, tokens_per_grid) bool, the m tokens that the rule kept; None if it is still to be applied.
        """


class Model(Protocol):
    """A loaded model of one family: all that the pipeline needs of it."""

    @property
    def geometry(self) -> Geometry:
        """What it counts in, with its checkpoint's own pixel bounds."""

    @property
    def device(self) -> "torch.device":
        """Where its weights are."""

    @property
    def dtype(self) -> "torch.dtype":
        """What its weights and activations are stored as."""

    @property
    def layers(self) -> int:
        """Number of decoder layers, L."""

    @property
    def width(self) -> int:
        """Width of the decoder's embeddings, d."""

    @property
    def context(self) -> int:
        """Tokens that the decoder was made for: prompt and answer together."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""

    @property
    def encoders(self) -> Sequence["torch.nn.Module"]:
        """The modules whose weights decide what a clip is encoded to."""

    @property
    def vision_depth(self) -> int:
        """Blocks of the vision encoder, before which a VisionRule may decide; 0 if that is not offered."""

    @property
    def audio_form(self) -> tuple[int, int, int]:
        """Heads, size of a head, and positions in a window of `AudioEncoding`'s queries and keys."""

    def vision_encoder(self, attention: Any) -> Any:
        """What encodes frames: see `omniqa.models.qwen2_5_omni.vision.VisionEncoder`."""

    def vision_stream(self, encoder: Any, reuse_static: float | None, rule: Any, take: TakeGrids) -> "GridSink":
        """What takes a clip's grids one by one.

        Args:
            encoder: what `vision_encoder` gave.
            reuse_static: tokens whose pixels differ from an earlier grid's by at most so much, in levels of 255, may
                be taken from there; None computes them all.
            rule: a VisionRule (omniqa.pruning). Whole windows of it are handed to `take` and freed; one whose block
                lies before the encoder's end is applied there. None hands on nothing.
            take: what it did not get is `finish`'s, and no rule was applied to that.
        """

    def attended_stream(self, encoder: Any) -> "AttendedSink":
        """What takes a clip's grids one by one, and works out `VisionAttention` (omniqa.pruning) besides.

        Raises:
            UsageError: the family has no such thing.
        """

    def audio_encoder(self, attention: Any) -> Any:
        """What encodes a log-mel: see `omniqa.models.qwen2_5_omni.audio.AudioEncoder`."""

    def decoder_stack(self, attention: Any) -> Any:
        """The decoder: an `omniqa.models.decoder.Decoder`, or a subclass."""

    def count_audio_tokens(self, mel_frames: int) -> int:
        """Audio tokens that so many frames of log-mel become."""

    def lay_out(self, shape: MediaShape, question: str | PromptText) -> TokenLayout:
        """The prompt's tokens: the text around the media, the media interleaved, and the question."""

    def decode_text(self, ids: Sequence[int]) -> str:
        """The text of generated token ids."""

    def load_aux_network(self, network: Any) -> Any:
        """A pruning method's own network for this model.

        Raises:
            ModelError: there are no weights that fit.
        """


def check_length(question: str | PromptText) -> None:
    """Raises UsageError for a question of more than QUESTION_CHARACTERS, or a conversation that is too long."""
    prompt = PromptText.of(question)
    length = max(map(len, prompt.questions))
    if length > QUESTION_CHARACTERS:
        raise UsageError(f"A question has {length:,} characters; at most {QUESTION_CHARACTERS:,} are taken.")
    length = len(prompt.system or "") + sum(map(len, prompt.questions)) + sum(len(turn.answer) for turn in prompt.turns)
    if length > CONVERSATION_CHARACTERS:
        raise UsageError(f"A conversation has {length:,} characters; at most {CONVERSATION_CHARACTERS:,} are taken.")
