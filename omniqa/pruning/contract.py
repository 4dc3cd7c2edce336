"""The interface of a pruning method, and what goes in and out of it.

A method acts at two places:

- the *input level*, once, before layer 0: which of the n audio and video tokens enter the decoder, and with which
  embeddings (`Method.prune_input`);
- the *layer level*, after each layer but the last: which of the n_l tokens kept at layer l are kept at layer l+1
  (`Method.prune_layer`). Layer l's keys and values keep all tokens kept at l, while decoding too, unless the method
  prunes the caches. Decoding itself drops nothing.

`Method.needs` names the signals that it chooses by. The engine computes these and no others.

Text tokens are never dropped and appear nowhere here. At the input level a method chooses by modality and the engine
interleaves; at the layer level every index counts audio and video tokens alone, from 0, in sequence order. Order and
position ids stay. Tensors returned lie on the device of the tensors given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.budget import ClipTokens, Plan
from omniqa.pruning.options import options_of
from omniqa.pruning.vision_rule import VisionRule

if TYPE_CHECKING:
    from torch import Tensor, nn

AttentionScope = Literal["global", "window"]
ScoreRows = Literal["prompt", "question", "last", "audio"]
DropPoint = Literal["attention", "output"]
PlanT = TypeVar("PlanT", bound=Plan)


class Signal:
    """Something that the engine computes only for the methods that need it."""


SignalT = TypeVar("SignalT", bound=Signal)


@dataclass(frozen=True)
class AudioAttention(Signal):
    """MediaTokens.audio_attention.

    scope: "global": the softmax runs over the whole sound, quadratic in its length; "window": inside each window of
        the audio encoder, linear.
    """

    scope: AttentionScope = "global"


@dataclass(frozen=True)
class VisionAttention(Signal):
    """MediaTokens.video_attention.

    Attributes:
        grids: of a window that the softmax runs over, counted from the video's first.
    """

    grids: ClassVar[int] = 2


@dataclass(frozen=True)
class QueryEmbeddings(Signal):
    """MediaTokens.query. The choice is then the question's own: nothing of it serves another question."""


@dataclass(frozen=True)
class Times(Signal):
    """MediaTokens.time_s."""


@dataclass(frozen=True)
class AuxNetwork(Signal):
    """MediaTokens.aux_network, and where its weights are looked for, in this order.

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


@dataclass(frozen=True)
class Scores(Signal):
    """LayerSignals.scores.

    rows: the query rows that they average over. "prompt": every token after the last audio/video token, without earlier
        turns of a conversation; "question": the user's words of the last turn; "last": the last token of the prompt;
        "audio": all audio tokens, for a video token those that can see it. A method that scores by audio prunes no
        audio after a layer.
    """

    rows: ScoreRows = "prompt"


@dataclass(frozen=True)
class LayerKeys(Signal):
    """LayerSignals.keys."""


@dataclass(frozen=True)
class HiddenStates(Signal):
    """LayerSignals.hidden_states."""


@dataclass(frozen=True, eq=False)
class MediaTokens:
    """The audio and video tokens of a clip before any pruning, after the encoders' projections.

    Signals that the method does not need (`Method.needs`) are None.

    modality: (n,) integer, VIDEO or AUDIO, in sequence order.
    chunk: (n,) long, the chunk of each token by its time, from 0, in sequence order.
    tokens_per_grid: tokens of one grid; the video's grids follow one another in `video`. Any number if there are none.
    video: (n_video, d) embeddings in time order; the j-th goes to the j-th VIDEO slot of the sequence. With `rule`
        those of the tokens that it kept alone.
    audio: (n_audio, d) embeddings in time order; the j-th goes to the j-th AUDIO slot.
    audio_attention: (n_audio,) float32, attention that an audio token receives in the last layer of the audio encoder,
        also called its importance. None also if there is no audio.
    time_s: (n,) float64 on the CPU, seconds of each token from the range's start, in sequence order; a grid's is that
        of its first frame.
    aux_network: the method's own network, float32, for inference.
    video_attention: (n_video,) float32, attention that a video token receives in the vision encoder's last block, the
        softmax over a window of two grids: heads averaged, queries summed, then the mean of its patches.
    query: (words, d) input embeddings of the question's own tokens.
    rule: the rule by which video was pruned already, see Method.vision_rule; None: all of it is here.
    video_keep: (n_video,) bool, the tokens that the rule kept; None without one.

    Raises:
        ValueError: the shapes contradict each other.
    """

    modality: Tensor
    chunk: Tensor
    tokens_per_grid: int
    video: Tensor
    audio: Tensor
    audio_attention: Tensor | None = None
    time_s: Tensor | None = None
    aux_network: nn.Module | None = None
    video_attention: Tensor | None = None
    query: Tensor | None = None
    rule: VisionRule | None = None
    video_keep: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.rule is None) != (self.video_keep is None):
            raise ValueError("rule and video_keep are given together or not at all")
        n = self.n_video + len(self.audio)
        if self.n_video and (self.tokens_per_grid < 1 or self.n_video % self.tokens_per_grid):
            raise ValueError(f"{self.n_video} video tokens are no whole number of grids of {self.tokens_per_grid}")
        for name, count in {
            "modality": n,
            "chunk": n,
            "time_s": n,
            "audio_attention": len(self.audio),
            "video_attention": self.n_video,
        }.items():
            given = getattr(self, name)
            if given is not None and given.shape != (count,):
                raise ValueError(f"{name} {tuple(given.shape)} is not ({count},)")

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
            if rule.block is not None:
                raise ValueError(f"{rule} decides inside the vision encoder; what it would keep is unknown here")
            return rule.keep(self.video.unflatten(0, (-1, self.tokens_per_grid))).flatten()
        if self.rule != rule:
            raise ValueError(f"{self.rule} pruned the video; what {rule} would keep is unknown")
        return self.video_keep

    def places(self, kind: int) -> Tensor:
        """(n_video,) or (n_audio,) long: where the tokens of a modality stand in the sequence, ascending."""
        from omniqa.pruning.ops import nonzero_static

        return nonzero_static(self.modality == kind, {VIDEO: self.n_video, AUDIO: len(self.audio)}[kind])

    def keep(self, indices: Tensor) -> Kept:
        """The choice of the tokens at `indices` (m,) of the sequence, for methods that choose from both at once."""
        import torch

        kept = torch.zeros_like(self.modality, dtype=torch.bool).index_fill_(0, indices, True)
        return Kept(kept[self.places(VIDEO)], kept[self.places(AUDIO)])


@dataclass(frozen=True, eq=False)
class Kept:
    """What enters layer 0; the engine interleaves it.

    video: (n_video,) bool. audio: (n_audio,) bool. None keeps the whole modality.
    video_embeddings, audio_embeddings: what the kept tokens of the modality enter with, (kept, d), for methods that
        merge; None: their own, unchanged.
    """

    video: Tensor | None = None
    audio: Tensor | None = None
    video_embeddings: Tensor | None = None
    audio_embeddings: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LayerSignals:
    """The n_l tokens kept at a layer, in sequence order, once that layer has been computed.

    "At the drop" means by what enters the layer if Method.drop_point is "attention", and by what the layer gives, put
    through the layer's own norm and projections, if it is "output". Signals that the method does not need are None.

    modality: (n_l,) integer, VIDEO or AUDIO.
    chunk: (n_l,) long.
    max_chunk: the largest chunk index of the clip before any pruning.
    scores: (n_l,) float32, S_i: attention probability at the drop from the rows of `Scores` to token i, averaged over
        heads and rows, the softmax over all keys that a row sees, text included.
    keys: (n_l, KV, D) the layer's keys at the drop, after rotary.
    hidden_states: (n_l, d) at the drop.
    """

    modality: Tensor
    chunk: Tensor
    max_chunk: int
    scores: Tensor | None = None
    keys: Tensor | None = None
    hidden_states: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LayerKept:
    """What is kept at the next layer.

    Attributes:
        keep: (m,) long, ascending positions among the n_l tokens of the LayerSignals.
        prune_caches: whether the dropped tokens leave the caches of this layer and of all before it, too.
    """

    keep: Tensor
    prune_caches: bool = False


@dataclass(frozen=True)
class Method(ABC, Generic[PlanT]):
    """A pruning method at one retention; its options are its dataclass fields (`omniqa.pruning.options`).

    A method is a frozen dataclass in `omniqa.pruning.methods`; `omniqa.pruning.registry` finds it there. It sets
    `name`, `paper` (a URL) and `summary` (one line), says by `plan` how many tokens go where and by `needs` what it
    chooses by, and overrides `prune_input` or `prune_layer` or both.

    Attributes:
        retention: R, the asked mean over layers of tokens kept / tokens before pruning, in (0, 1].

    Raises:
        UsageError: an option has a value that its type does not allow.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    exact_plan: ClassVar[bool] = True
    """Whether `plan` is exact. False where the counts depend on the tokens themselves: the plan is then the target."""
    drop_point: ClassVar[DropPoint] = "attention"
    """Where in a layer its tokens are dropped: before its MLP ("attention") or after it ("output")."""

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
    def needs(self) -> frozenset[Signal]:
        """What the engine must compute for these options, at most one of each kind; here: nothing."""
        return frozenset()

    def need(self, kind: type[SignalT]) -> SignalT | None:
        """The signal of this kind that the method needs; None: it needs none."""
        return next((signal for signal in self.needs if isinstance(signal, kind)), None)

    @abstractmethod
    def plan(self, clip: ClipTokens, layers: int) -> PlanT:
        """How many of the clip's tokens each of the decoder's `layers` layers will hold.

        Arithmetic on counts, without torch.

        Raises:
            UsageError: the method can't serve this clip, decoder or R.
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

    def prune_input(self, media: MediaTokens, plan: PlanT) -> Kept:
        """The plan.kept[0] tokens that enter layer 0; here: all of them.

        Args:
            plan: what `plan` returned for media.counts.
        """
        return Kept()

    def prune_layer(self, layer: int, signals: LayerSignals, plan: PlanT) -> LayerKept:
        """The tokens kept at `layer` that are kept at layer + 1; here: all of them.

        Called where `plan.prunes(layer)`. Keeps n_l - plan.drops[layer] tokens if the plan is exact, and then never
        waits for the device.
        """
        import torch

        return LayerKept(torch.arange(len(signals.modality), device=signals.modality.device))


AnyMethod = Method[Any]
"""A method whose kind of plan the caller does not look into."""


def missing(method: AnyMethod, signal: str) -> ValueError:
    """The error of a caller who does not give a method what it needs."""
    return ValueError(f"{method.name} needs {signal}, as its `needs` say")


def needs_attended(*methods: AnyMethod) -> bool:
    """Whether one of the methods needs what video tokens receive in the vision encoder's last block."""
    return any(method.need(VisionAttention) for method in methods)
