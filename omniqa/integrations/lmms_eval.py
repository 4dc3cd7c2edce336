"""omniqa as a model of lmms-eval, with model arguments such as pretrained=…,method=omnidrop,retention=0.3.

lmms-eval finds it by the entry point `omniqa` of the group `lmms_eval.models`. It must be installed beside omniqa.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from omniqa.errors import UsageError
from omniqa.media.sampling import ClipOptions
from omniqa.pipeline.encoded_clip import EncodedClip
from omniqa.pipeline.load import load
from omniqa.pruning.variants import method_variants
from omniqa.runtime.generation_options import GenerationOptions

_MAX_NEW_TOKENS = 128  # for tasks that give none


def manifest() -> ModelManifest:
    """What lmms-eval registers."""
    return ModelManifest("omniqa", simple_class_path=f"{__name__}.OmniqaModel")


class OmniqaModel(lmms):
    """Answers lmms-eval's questions about one video each.

    Args:
        pretrained: a folder, a hub id, or "nano"; as `omniqa.load` takes it.
        method: a name of `omniqa methods`, also with options ("omnidrop:tds=false").
        retention: R.
        device: as `omniqa.load` takes it.
        dtype: likewise.
        attention: likewise.
        fps: frames a second.
        max_num_frames: most frames.
        min_pixels: fewest of a frame.
        max_pixels: most of a frame.
        total_pixels: most of all frames.
        use_audio: whether the sound is taken.
        batch_size: 1; what lmms-eval passes.
        max_batch_size: likewise; not used.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        method: str = "omnidrop",
        retention: float = 0.3,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        fps: float = 2.0,
        max_num_frames: int = 128,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        total_pixels: int | None = None,
        use_audio: bool = True,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if str(batch_size) not in ("1", "auto"):
            raise UsageError(f"batch_size must be 1, not {batch_size}: omniqa answers one question at a time.")
        (self._column,) = method_variants([method], [float(retention)])
        self._sampling = ClipOptions(
            fps=fps, max_frames=max_num_frames, min_pixels=min_pixels, max_pixels=max_pixels,
            total_pixels=total_pixels, audio=use_audio,
        )  # fmt: skip
        self._qa = load(pretrained, str(device), dtype, attention)
        self._encoded: tuple[str, EncodedClip] | None = None

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers, in the order of the requests. Raises UsageError for what is not about exactly one video."""
        return [self._answer(*request.args) for request in requests]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raises UsageError: omniqa answers single questions."""
        raise UsageError("omniqa does not serve lmms-eval's tasks of several rounds.")

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Raises UsageError: omniqa writes answers, it does not score given ones."""
        raise UsageError("omniqa does not serve lmms-eval's tasks that score given answers.")

    def _answer(
        self, context: str, generation: Mapping[str, Any], to_visual: Any, number: Any, task: str, split: str
    ) -> str:
        visuals = list(to_visual(self.task_dict[task][split][number]))
        if len(visuals) != 1 or not isinstance(visuals[0], str):
            raise UsageError(f"{task}, {number}: omniqa takes one video's path a question, not {visuals!r:.200}.")
        pruner, clip = self._column.pruner, self._encode(visuals[0])
        answers = self._qa.ask_all(clip, [context], pruner, decoding=_decoding(generation))
        text = next(answers).text
        for stop in _stops(generation):
            text = text.partition(stop)[0]
        self.cache_hook.add_partial("generate_until", (context, generation), text)
        return text

    def _encode(self, path: str) -> EncodedClip:
        """The clip, encoded once for questions about it that follow each other."""
        if self._encoded is None or self._encoded[0] != path:
            self._encoded = None  # never two of them at a time
            self._encoded = path, self._qa.encode(path, self._sampling, method=self._column.pruner)
        return self._encoded[1]


def _decoding(generation: Mapping[str, Any]) -> GenerationOptions:
    """What a task asks for, as omniqa's options. Raises UsageError for a search with several beams."""
    if generation.get("num_beams") not in (None, 1):
        raise UsageError(f"omniqa decodes without a beam search, and num_beams is {generation['num_beams']}.")
    draws = generation.get("do_sample", True)
    temperature = float(generation.get("temperature") or 0) if draws else 0.0
    tokens = generation.get("max_new_tokens") or generation.get("max_gen_toks") or _MAX_NEW_TOKENS
    top_p = generation.get("top_p")
    return GenerationOptions(int(tokens), temperature, 1.0 if not top_p or not temperature else float(top_p))


def _stops(generation: Mapping[str, Any]) -> list[str]:
    until = generation.get("until") or []
    return [stop for stop in ([until] if isinstance(until, str) else until) if stop]
