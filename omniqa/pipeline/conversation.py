"""A conversation about one clip: questions that are asked after those before them and their answers."""

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from omniqa.errors import UsageError
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import OWN_SYSTEM_TEXT, PromptText, Turn, check_length
from omniqa.pipeline.answer import Answer
from omniqa.pipeline.encoded_clip import EncodedClip
from omniqa.pipeline.preprocess import Progress, Video, silent
from omniqa.pruning import registry
from omniqa.pruning.contract import AnyMethod, needs_attended
from omniqa.runtime.generation_options import GenerationOptions

if TYPE_CHECKING:
    from omniqa.pipeline.engine import OmniQA


class AnswerPieces:
    """An answer's text as it is generated: an iterator of pieces.

    Attributes:
        answer: the whole answer, once the pieces have come to an end; None before, and if they were stopped.
    """

    def __init__(self, pieces: Generator[str, None, Answer]) -> None:
        self.answer: Answer | None = None
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self.answer = self.answer or end.value
            raise StopIteration from None

    def close(self) -> None:
        """Stop the answer; its question is then no part of the conversation."""
        self._pieces.close()


class Conversation:
    """Questions about one clip, each with those before it and their answers in its prompt. Made by `OmniQA.chat`.

    The clip is encoded once, and what the decoder computes of it is shared by all questions that one method answers.
    The last question alone decides which tokens are pruned.

    Attributes:
        method: that questions are asked by if they name no other.
        turns: the questions answered so far, and their answers.
        clip: the encoded clip; None before the first question.
        video: what the conversation is about, as it was given.
    """

    def __init__(
        self,
        qa: "OmniQA",
        video: Video | EncodedClip,
        method: AnyMethod,
        *,
        sampling: ClipOptions | None = None,
        decoding: GenerationOptions | None = None,
        system: str | None = OWN_SYSTEM_TEXT,
        turns: list[Turn] | None = None,
    ) -> None:
        if isinstance(video, EncodedClip) and sampling is not None:
            raise UsageError("This video is encoded already: sampling can't change any more.")
        self.method = method
        self.turns = turns if turns is not None else []
        self.clip = video if isinstance(video, EncodedClip) else None
        self.video = video
        self._qa, self._sampling = qa, sampling
        self._decoding, self._system = decoding or GenerationOptions(), system

    def __repr__(self) -> str:
        return f"<Conversation of {len(self.turns)} turns by {self.method.name}>"

    def ask(
        self,
        question: str,
        method: str | AnyMethod | None = None,
        retention: float | None = None,
        *,
        options: dict[str, Any] | None = None,
        decoding: GenerationOptions | None = None,
        progress: Progress = silent,
    ) -> Answer:
        """Answer the next question. Arguments are those of `OmniQA.ask`; None is what the conversation began with.

        Raises:
            UsageError: the conversation and its clip have more tokens than the model takes.
            OmniqaError: as `OmniQA.ask` does.
        """
        return drained(self._turn(question, self._resolve(method, retention, options), decoding, progress))

    def stream(
        self,
        question: str,
        method: str | AnyMethod | None = None,
        retention: float | None = None,
        *,
        options: dict[str, Any] | None = None,
        decoding: GenerationOptions | None = None,
        progress: Progress = silent,
    ) -> AnswerPieces:
        """Answer the next question piece by piece; nothing is computed before the first piece is taken.

        Raises:
            OmniqaError: as `ask` does; the method is looked up at once, all else comes with the pieces.
        """
        return AnswerPieces(self._turn(question, self._resolve(method, retention, options), decoding, progress))

    def reset(self) -> None:
        """Forget all questions and answers; the clip stays encoded."""
        self.turns.clear()

    def _resolve(
        self, method: str | AnyMethod | None, retention: float | None, options: dict[str, Any] | None
    ) -> AnyMethod:
        if method is None and retention is None and options is None:
            return self.method
        return registry.resolve(self.method.name if method is None else method, retention, options)

    def _turn(
        self, question: str, method: AnyMethod, decoding: GenerationOptions | None, progress: Progress
    ) -> Generator[str, None, Answer]:
        decoding = decoding or self._decoding
        prompt = PromptText(question, system=self._system, turns=tuple(self.turns))
        check_length(prompt)
        if not question.strip():
            raise UsageError("The question is empty.")
        before = self.clip
        clip = self._encoded(method, progress)
        check_context(self._qa, clip, prompt, method, decoding.max_new_tokens)
        spent = clip.timing_s if clip is not before else {}
        answer = yield from self._qa.stream(clip, prompt, method, decoding, spent, progress)
        self.turns.append(Turn(question, answer.text))
        return answer

    def _encoded(self, method: AnyMethod, progress: Progress) -> EncodedClip:
        """The clip, encoded so that the method can be asked by: again, if the encoding at hand does not serve it."""
        clip = self.clip
        if clip is not None and (isinstance(self.video, EncodedClip) or self._serves(clip, method)):
            return clip
        self.clip = None  # never two of them at a time
        del clip
        self.clip = self._qa.encode(self.video, self._sampling, method=method, progress=progress)
        return self.clip

    def _serves(self, clip: EncodedClip, method: AnyMethod) -> bool:
        lacks_attention = needs_attended(method) and clip.video_attention is None
        return not lacks_attention and self._qa.serves(clip, method)


def check_context(qa: "OmniQA", clip: EncodedClip, prompt: PromptText, method: AnyMethod, max_new_tokens: int) -> None:
    """Refuse a conversation that is longer than the decoder was made for.

    Counted are the audio and video tokens that enter the decoder, all text, and the answer's most tokens.

    Raises:
        UsageError: they are more than the model takes.
    """
    layout = qa.model.lay_out(clip.shape, prompt)
    media = clip.plan(method, qa.model.layers).kept[0]
    text = len(layout.ids) - (layout.media.stop - layout.media.start)
    if (needed := media + text + max_new_tokens) > qa.model.context:
        raise UsageError(
            f"The conversation needs {needed:,} tokens, {media:,} of them for the clip; the model takes "
            f"{qa.model.context:,}. Begin a new conversation, or keep less of the clip."
        )


def drained(pieces: Generator[str, None, Answer], on_text: Callable[[str], None] = lambda text: None) -> Answer:
    """The answer, once all its pieces have gone to `on_text`."""
    while True:
        try:
            on_text(next(pieces))
        except StopIteration as end:
            return end.value
