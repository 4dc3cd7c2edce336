"""A clip on its way to the decoder: as it came from the file, and after both encoders."""

from collections import OrderedDict
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omniqa.errors import UsageError
from omniqa.media.clip import Clip
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import MediaShape, PromptText
from omniqa.models.encoded_media import EncodedMedia
from omniqa.models.prefix_cache import PrefixCache
from omniqa.pruning.budget import SLACK, TOLERANCE, Plan
from omniqa.pruning.contract import AnyMethod, AudioAttention, Kept, VisionAttention
from omniqa.pruning.vision_rule import VisionRule

Opening = tuple[str | None, str]  # as `PromptText.opening`
PLAIN: Opening = PromptText("").opening
SHARED_BYTES = 2**30  # of what questions about one clip share, kept between them


@dataclass(frozen=True, eq=False)
class PrefixState:
    """What questions about one clip by one method start from; nothing of it depends on the question.

    Attributes:
        prefix: None if the decoder has nothing to start from.
    """

    selection: Kept
    prefix: PrefixCache | None

    @property
    def bytes(self) -> int:
        """What is held of the decoder's work."""
        return self.prefix.bytes if self.prefix else 0


class PrefixStates:
    """What questions about one clip share, so that a further one need not compute it again.

    Attributes:
        audio_attention: of the audio tokens.
        plans: by method.
    """

    def __init__(self, most_bytes: int = SHARED_BYTES) -> None:
        self.audio_attention: dict[AudioAttention, Tensor] = {}
        self.plans: dict[AnyMethod, Plan] = {}
        self._most_bytes = most_bytes
        self._starts: OrderedDict[tuple[AnyMethod, Opening], PrefixState] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What is held of the decoder's work."""
        return sum(start.bytes for start in self._starts.values())

    def of(self, pruner: AnyMethod, opening: Opening = PLAIN) -> PrefixState | None:
        """What an earlier question by an equal method left, behind the same words in front of the media."""
        return self._starts.get((pruner, opening))

    def keep(self, pruner: AnyMethod, start: PrefixState, opening: Opening = PLAIN) -> None:
        """Leave it for the next; the methods not asked by for longest give way."""
        self._starts[pruner, opening] = start
        self._starts.move_to_end((pruner, opening))
        while len(self._starts) > 1 and self.bytes > self._most_bytes:
            self._starts.popitem(last=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedClip(EncodedMedia):
    """A clip after both encoders, ready for any number of questions.

    Attributes:
        timing_s: what decoding and encoding took, by stage.
        shared: what the questions asked so far have left for the next.
        sampling: how it was taken from its file; None for a clip that was sampled before.
    """

    name: str
    timing_s: dict[str, float] = field(default_factory=dict)
    shared: PrefixStates = field(default_factory=PrefixStates)
    sampling: ClipOptions | None = None

    @classmethod
    def of(cls, media: EncodedMedia, name: str, sampling: ClipOptions | None) -> "EncodedClip":
        """A clip that was encoded before, called `name` now."""
        return cls(name=name, sampling=sampling, **{part.name: getattr(media, part.name) for part in fields(media)})

    def __repr__(self) -> str:
        n = self.counts
        tokens = f"{n.n_video} video, {n.n_audio} audio tokens"
        return f"<EncodedClip {self.name!r}: {self.summary.duration_s:.3g} s, {tokens}>"

    @property
    def frames(self) -> int:
        """How many frames were taken."""
        return self.summary.frames

    def on(self, device: torch.device) -> "EncodedClip":
        """The same with its tensors on `device`."""
        if self.video.device == device:
            return self
        keep = None if self.keep is None else self.keep.to(device)
        added = None if self.added is None else self.added.to(device)
        attention = None if self.video_attention is None else self.video_attention.to(device)
        return replace(
            self,
            video=self.video.to(device),
            audio=self.audio and self.audio.on(device),
            keep=keep,
            added=added,
            video_attention=attention,
        )

    def after(self, seconds: dict[str, float]) -> "EncodedClip":
        """The same once `seconds` more, by stage, were spent on it."""
        total = {stage: self.timing_s.get(stage, 0.0) + seconds.get(stage, 0.0) for stage in self.timing_s | seconds}
        return replace(self, timing_s=total)

    def warned(self, *warnings: str | None) -> "EncodedClip":
        """The same with warnings added; None is none."""
        told = (*self.summary.warnings, *(warning for warning in warnings if warning is not None))
        return replace(self, summary=replace(self.summary, warnings=told))

    def serves(self, rule: VisionRule | None) -> bool:
        """Whether a method with this rule can use what was encoded."""
        return self.rule == rule or (self.rule is None and (rule is None or rule.block is None))

    def plan(self, method: AnyMethod, layers: int) -> Plan:
        """The method's plan for this clip, solved once.

        Raises:
            UsageError: the method can't serve this clip, or needs tokens that the clip no longer has.
        """
        if method not in self.shared.plans:
            plan = method.plan(self.counts, layers)
            if method.need(VisionAttention) and self.video_attention is None:
                raise UsageError(f"{self.name} lacks what {method.name} needs; encode it with that method.")
            if not self.serves(method.vision_rule(plan)):
                raise UsageError(
                    f"{self.name} was encoded for another method or retention, and {method.name} at "
                    f"{method.target:g} needs video tokens that it lacks; encode it with that method."
                )
            self.shared.plans[method] = plan
        return self.shared.plans[method]

    def settle(self, method: AnyMethod, layers: int) -> bool:
        """Take what was kept by the method's rule for an estimate of this clip, and solve the plan for the rest.

        Returns:
            Whether that misses R by at most TOLERANCE, or by no more than the method would anyway.
        """
        plan: Plan | None = method.plan(self.counts, layers)
        assert plan is not None
        if not self.serves(method.vision_rule(plan)):
            allowed = max(TOLERANCE, abs(plan.retention - method.target)) + SLACK
            plan = method.replan(self.counts, layers, self.rule) if self.rule else None
            if plan is None or abs(plan.retention - method.target) > allowed:
                return False
        self.shared.plans[method] = plan
        return True

    def audio_attention(self, signal: AudioAttention | None) -> Tensor | None:
        """(n_A,) attention that audio tokens receive, worked out once; None without sound, or if it is not needed."""
        if self.audio is None or signal is None:
            return None
        if signal not in self.shared.audio_attention:
            self.shared.audio_attention[signal] = self.audio.attention_received(signal.scope)
        return self.shared.audio_attention[signal]


@dataclass(frozen=True, eq=False)
class PreprocessedClip:
    """A clip before the encoders: what the file gave, and how many tokens that will be.

    Attributes:
        mel: (128, frames) log-mel; None where there is no sound.
        timing_s: what decoding and the log-mel took.
        key: what it is kept under in the cache once it is encoded; None keeps it nowhere.
        note: a warning about the cache.
        sampling: how it was taken from its file; None for a clip that was sampled before.
    """

    name: str
    clip: Clip
    mel: NDArray[np.float32] | None
    shape: MediaShape
    timing_s: dict[str, float]
    key: str | None = None
    note: str | None = None
    sampling: ClipOptions | None = None

    @property
    def frames(self) -> int:
        """How many frames were taken."""
        return len(self.clip.frame_times)
