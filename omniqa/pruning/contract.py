"""The interface of a pruning method, and what goes in and out of it.

A method acts at two places:

- the *input level*, once, before layer 0: which of the n audio and video tokens enter the decoder, and with which
  embeddings (`Method.prune_input`);
- the *layer level*, after each layer but the last: which of the n_l tokens alive at layer l are alive at layer l+1
  (`Method.prune_layer`). Layer l's keys and values keep all tokens alive at l, while decoding too; those dropped
  leave before layer l+1. Decoding itself drops nothing.

Text tokens are never dropped and appear nowhere here. Every index counts audio and video tokens alone, from 0, in
sequence order, where a chunk's video and audio tokens are interleaved; every selection is ascending, so that order
and position ids stay. Tensors returned lie on the device of the tensors given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from omniqa.errors import UsageError
from omniqa.pruning.budget import ClipTokens, Plan
from omniqa.pruning.options import options_of
from omniqa.pruning.vision_rule import VisionRule

if TYPE_CHECKING:
    from torch import Tensor, nn

AudioAttention = Literal["global", "window"]
ScoreRows = Literal["prompt", "question", "last", "audio"]
PlanT = TypeVar("PlanT", bound=Plan)


@dataclass(frozen=True)
class AuxNetwork:
    """A network of the method's own, and where its weights are looked for, in this order.

    method: the method's name, for messages.
    option: the method's option that names a safetensors file; path: what it was set to, None where it was not.
    prefix: what the names of its tensors begin with among the Thinker's. In a file of its own they may do without.
    file: the name of a safetensors file in the checkpoint's folder.
    make: the network with weights not trained yet, from the width d of the embeddings; its parameters' names and
        shapes are those of the tensors.
    """

    method: str
    option: str
    path: str | None
    prefix: str
    file: str
    make: Callable[[int], nn.Module]


@dataclass(frozen=True, eq=False)
class MediaTokens:
    """The audio and video tokens of a clip before any pruning, after the encoders' projections.

    modality: (n,) integer, VIDEO or AUDIO, in sequence order.
    chunk: (n,) long, the 2 s chunk of each token by its time, from 0, in sequence order.
    tokens_per_grid: tokens of one grid; the video's grids follow one another in `video`. Any number if there are none.
    video: (n_video, d) embeddings in time order; the j-th goes to the j-th VIDEO slot of the sequence. With `rule`
        those of the tokens that it kept alone.
    audio: (n_audio, d) embeddings in time order; the j-th goes to the j-th AUDIO slot.
    audio_importance: (n_audio,) float32, what an audio token receives from the others in the last audio-encoder
        layer; None where the method did not ask for it (Method.audio_importance).
    time_s: (n,) float64 on the CPU, seconds of each token from the range's start, in sequence order; a grid's is that
        of its first frame. None where nobody knows.
    aux_network: the method's own network, float32, for inference; None if it did not ask for one (Method.aux_network).
    rule: the rule by which video was pruned already, see Method.vision_rule; None: all of it is here.
    video_keep: (n_video,) bool, the tokens that the rule kept; None without one.

    Raises ValueError where the shapes contradict each other.
    """

    modality: Tensor
    chunk: Tensor
    tokens_per_grid: int
    video: Tensor
    audio: Tensor
    audio_importance: Tensor | None = None
    time_s: Tensor | None = None
    aux_network: nn.Module | None = None
    rule: VisionRule | None = None
    video_keep: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.rule is None) != (self.video_keep is None):
            raise ValueError("rule and video_keep are given together or not at all")
        n = self.n_video + len(self.audio)
        if self.modality.shape != (n,) or self.chunk.shape != (n,):
            raise ValueError(
                f"modality {tuple(self.modality.shape)} and chunk {tuple(self.chunk.shape)} are not ({n},)"
            )
        if self.n_video and (self.tokens_per_grid < 1 or self.n_video % self.tokens_per_grid):
            raise ValueError(f"{self.n_video} video tokens are no whole number of grids of {self.tokens_per_grid}")
        if self.audio_importance is not None and self.audio_importance.shape != (len(self.audio),):
            raise ValueError(f"audio_importance {tuple(self.audio_importance.shape)} is not ({len(self.audio)},)")
        if self.time_s is not None and self.time_s.shape != (n,):
            raise ValueError(f"time_s {tuple(self.time_s.shape)} is not ({n},)")

    @property
    def n_video(self) -> int:
        """Video tokens before any pruning."""
        return len(self.video) if self.video_keep is None else len(self.video_keep)

    @property
    def counts(self) -> ClipTokens:
        """These tokens as counts, to plan with."""
        return ClipTokens(
            len(self.audio), self.n_video // self.tokens_per_grid if self.tokens_per_grid else 0, self.tokens_per_grid
        )

    def kept_by(self, rule: VisionRule) -> Tensor:
        """(n_video,) bool: the video tokens that `rule` keeps.

        Raises:
            ValueError: another rule pruned the video before, so that nobody knows.
        """
        if self.video_keep is None:
            return rule.keep(self.video.unflatten(0, (-1, self.tokens_per_grid))).flatten()
        if self.rule != rule:
            raise ValueError(f"{self.rule} pruned the video; what {rule} would keep is unknown")
        return self.video_keep


@dataclass(frozen=True, eq=False)
class Kept:
    """What enters layer 0.

    keep: (m,) long, ascending indices into the n tokens.
    embeddings: (m, d), what the kept tokens enter with, for methods that merge; None: their own, unchanged.
    """

    keep: Tensor
    embeddings: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LayerSignals:
    """The n_l tokens alive at a layer, in sequence order, once that layer has been computed.

    scores: (n_l,) float32, S_i: attention probability from the rows of Method.query_rows to token i, averaged over
        heads and rows, the softmax over all keys that a row sees, text included.
    modality: (n_l,) integer, VIDEO or AUDIO.
    chunk: (n_l,) long.
    max_chunk: the largest chunk index of the clip before any pruning.
    """

    scores: Tensor
    modality: Tensor
    chunk: Tensor
    max_chunk: int


@dataclass(frozen=True)
class Method(ABC, Generic[PlanT]):
    """A pruning method at one retention; its options are its dataclass fields (`omniqa.pruning.options`).

    retention: R, the asked mean over layers of tokens alive / tokens before pruning, in (0, 1].

    A method is a frozen dataclass in `omniqa.pruning.methods`; `omniqa.pruning.registry` finds it there. It sets
    `name`, `paper` (a URL) and `summary` (one line), says by `plan` how many tokens go where, and overrides
    `prune_input` or `prune_layer` or both. Raises UsageError for an option's value that its type does not allow.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    exact_plan: ClassVar[bool] = True
    """Whether `plan` is exact. False where the counts depend on the tokens themselves: the plan is then the target."""

    retention: float

    def __post_init__(self) -> None:
        if not 0 < self.retention <= 1:
            raise UsageError(
                f"Retention {self.retention} is out of range; give a number above 0 and at most 1.", field="retention"
            )
        for option in options_of(type(self)):
            option.check(getattr(self, option.name))

    @property
    def target(self) -> float:
        """The R that the method aims at; here: the asked one."""
        return self.retention

    @property
    def audio_importance(self) -> AudioAttention | None:
        """The softmax by which the audio encoder must compute MediaTokens.audio_importance; None: not needed."""
        return None

    @property
    def aux_network(self) -> AuxNetwork | None:
        """The network that MediaTokens.aux_network must be; None: none is needed."""
        return None

    @property
    def query_rows(self) -> ScoreRows:
        """The query rows that LayerSignals.scores averages over.

        "prompt": every token after the last audio/video token; "question": the user's words alone; "last": the last
        token of the prompt; "audio": all audio tokens, for a video token those that can see it. A method that scores
        by these lets none of them leave after a layer.
        """
        return "prompt"

    @abstractmethod
    def plan(self, clip: ClipTokens, layers: int) -> PlanT:
        """How many of the clip's tokens each of the decoder's `layers` layers will hold.

        Arithmetic on counts, without torch. Raises UsageError where the method can't serve this clip, decoder or R.
        """

    def vision_rule(self, plan: PlanT) -> VisionRule | None:
        """How the input level chooses video, if it looks at a few grids at a time and the counts alone say the rest.

        `prune_input` then asks MediaTokens.kept_by, and takes tokens with a `rule`: omniqa frees what the rule drops
        of a long video while it is encoded. None, as here: the method needs all tokens.
        """
        return None

    def replan(self, clip: ClipTokens, layers: int, rule: VisionRule) -> PlanT | None:
        """The plan for a clip whose video `rule` has pruned already, on other counts than `clip`'s.

        `vision_rule` of that plan is `rule`. None, as here: the video has to be encoded again.
        """
        return None

    def prune_input(self, tokens: MediaTokens, plan: PlanT) -> Kept:
        """The plan.alive[0] tokens that enter layer 0; here: all of them.

        plan: what `plan` returned for tokens.counts.
        """
        import torch

        return Kept(torch.arange(len(tokens.modality), device=tokens.modality.device))

    def prune_layer(self, layer: int, alive: LayerSignals, plan: PlanT) -> Tensor:
        """The tokens alive at `layer` that stay alive at layer + 1; here: all of them.

        Returns (n_l - plan.drops[layer],) long, ascending positions among the n_l of `alive`. Need not be called,
        nor scores computed for it, where plan.drops[layer] is 0. Never waits for the device.
        """
        import torch

        return torch.arange(len(alive.scores), device=alive.scores.device)


AnyMethod = Method[Any]
"""A method whose kind of plan the caller does not look into."""
