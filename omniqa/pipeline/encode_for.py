"""Encoding a clip to be asked about by one method: what it keeps, while or before its tokens are encoded."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from omniqa.errors import UsageError
from omniqa.media.clip import Clip
from omniqa.media.download import held
from omniqa.media.sampling import ClipOptions
from omniqa.media.source import Source, open_source, path_of
from omniqa.models.base import Model
from omniqa.pipeline.encode import ClipEncoder
from omniqa.pipeline.encoded_clip import EncodedClip
from omniqa.pipeline.prefill import PrefillStage
from omniqa.pipeline.preprocess import Progress, Ready, Video
from omniqa.pipeline.token_estimate import HELD_WHOLE, estimate_tokens
from omniqa.pruning.budget import ClipTokens, Plan
from omniqa.pruning.contract import AnyMethod, needs_attended
from omniqa.pruning.vision_rule import VisionRule


class MethodEncoder:
    """Encodes clips as the methods that are asked for need them. Its steps are those of `OmniQA`."""

    def __init__(self, model: Model, encoder: ClipEncoder, prefiller: PrefillStage) -> None:
        self._model = model
        self._encoder = encoder
        self._prefiller = prefiller

    def encode(self, method: AnyMethod, video: Video, sampling: ClipOptions | None, progress: Progress) -> EncodedClip:
        """Encode for one method. Of a long clip, the video tokens that the method drops are freed as they come."""
        with self._held(video, sampling):
            if isinstance(video, str | Path | Source):
                sampling = self._bounded(sampling)
                video = open_source(video, sampling.access)
                plan = self._plan_estimate(method, video, sampling)
                if plan is not None:
                    return self._encode_file(method, plan, video, sampling, progress)
            return self._encode_at_hand(method, self._ready(method, video, sampling, progress), progress)

    def prepare(
        self,
        video: Video | EncodedClip,
        sampling: ClipOptions | None,
        progress: Progress,
        *,
        attended: bool = False,
        decode: bool = False,
    ) -> Ready:
        """See `OmniQA.prepare`."""
        if not isinstance(video, str | Path | Source | Clip | Ready):
            raise UsageError(f"A video is a path or a clip, not a {type(video).__name__}. Ask about each by itself.")
        if not isinstance(video, str | Path | Source) and sampling is not None:
            raise UsageError("This clip is sampled already: sampling can't change any more.")
        if isinstance(video, Ready):
            return video
        return self._encoder.preparer.prepare(video, self._bounded(sampling), progress, attended, decode)

    def serves(self, ready: Ready, method: AnyMethod) -> bool:
        """See `OmniQA.serves`."""
        if not isinstance(ready, EncodedClip):
            return False
        return ready.serves(method.vision_rule(method.plan(ready.counts, self._model.layers)))

    def early_rule(self, method: AnyMethod, clip: ClipTokens) -> VisionRule | None:
        """See `OmniQA.early_rule`."""
        rule = method.vision_rule(method.plan(clip, self._model.layers))
        if rule is None or rule.block is None:
            return None
        rule.check_block(self._model.vision_depth)
        return rule

    def _bounded(self, sampling: ClipOptions | None) -> ClipOptions:
        """The options, with the model's pixel bounds where they name none."""
        return (sampling or ClipOptions()).within(self._model.geometry.pixel_bounds)

    def _held(self, video: Video, sampling: ClipOptions | None) -> AbstractContextManager[None]:
        """Keeps an address, which is opened more than once, usable meanwhile."""
        if not isinstance(video, str | Path | Source):
            return nullcontext()
        return held(path_of(video), (sampling or ClipOptions()).access)

    def _ready(self, method: AnyMethod, video: Video, sampling: ClipOptions | None, progress: Progress) -> Ready:
        """What `prepare` gives; a clip that is decoded even if the cache has it, but lacks tokens for the method."""
        attended = needs_attended(method)
        ready = self.prepare(video, sampling, progress, attended=attended)
        if isinstance(ready, EncodedClip) and not self.serves(ready, method):
            ready = self.prepare(video, sampling, progress, attended=attended, decode=True)
        return ready

    def _encode_at_hand(self, method: AnyMethod, ready: Ready, progress: Progress) -> EncodedClip:
        """Encode a clip whose tokens are counted; what the method refuses, it refuses before the long part."""
        shape = ready.shape
        clip = ClipTokens(shape.audio_tokens, shape.grids, shape.tokens_per_grid)
        plan = method.plan(clip, self._model.layers)
        self._prefiller.aux_network(method)
        return self._encoder.encode(ready, progress, self._rule(method, plan), needs_attended(method))

    def _rule(self, method: AnyMethod, plan: Plan) -> VisionRule | None:
        """The rule by which the method's video is pruned while it is encoded; None keeps all tokens until later.

        A short clip keeps them, unless the rule decides inside the encoder: its tokens take little memory (118 MB in
        the 7B at most), and in the cache they serve every method at every retention.

        Raises:
            UsageError: the vision encoder lacks the rule's block.
        """
        rule = method.vision_rule(plan)
        if rule is not None:
            rule.check_block(self._model.vision_depth)
            if rule.block is not None:
                return rule
        if needs_attended(method):  # the vision encoder's last block has to see all of them
            return None
        return rule if plan.clip.n_video > HELD_WHOLE else None

    def _plan_estimate(self, method: AnyMethod, source: Source, sampling: ClipOptions) -> Plan | None:
        """The plan for what the file says that it holds; None if the method can't serve that."""
        try:
            plan: Plan = method.plan(estimate_tokens(source.info, sampling, self._model.geometry), self._model.layers)
        except UsageError:
            return None
        self._prefiller.aux_network(method)
        return plan

    def _encode_file(
        self, method: AnyMethod, plan: Plan, source: Source, sampling: ClipOptions, progress: Progress
    ) -> EncodedClip:
        """Encode a file by the rule of a plan that was made for what the file says.

        If it holds something else, the rule stands and the plan is solved again. If that misses R, the file is encoded
        again, by its real counts; if these have changed by then, its frames are decoded before they are counted.
        """
        attended = needs_attended(method)
        encoded = self._encoder.encode_file(source, sampling, progress, self._rule(method, plan), attended)
        if encoded.settle(method, self._model.layers):
            return encoded
        plan, spent = method.plan(encoded.counts, self._model.layers), encoded.timing_s
        del encoded  # never two of them at a time
        encoded = self._encoder.encode_file(source, sampling, progress, self._rule(method, plan), attended)
        if not encoded.settle(method, self._model.layers):
            encoded = self._encode_at_hand(method, self._ready(method, source, sampling, progress), progress)
        note = f"{source.path} does not hold what it says, so that it had to be encoded twice."
        return encoded.after(spent).warned(note)
