"""omniqa as a model of the `llm` tool, as in: llm -m omniqa -a clip.mp4 "What happens?".

llm finds it by the entry point `omniqa` of the group `llm`. It asks the server that the environment variable
OMNIQA_SERVER names, as http://127.0.0.1:8000; without one it loads the model. llm must be installed beside omniqa.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llm
from pydantic import Field

from omniqa.errors import OmniqaError, UsageError
from omniqa.media.pipe import spool_to_tempfile
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import OWN_SYSTEM_TEXT, Turn
from omniqa.runtime.generation_options import GenerationOptions

if TYPE_CHECKING:
    from omniqa.pipeline.encoded_clip import EncodedClip
    from omniqa.pipeline.engine import OmniQA

_CLIP = ("start", "end", "fps", "max_frames")


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Give llm the model."""
    register(Omniqa())


class MediaTypes(frozenset[str]):
    """All types of pictures that move, and of sound."""

    def __contains__(self, kind: object) -> bool:
        return isinstance(kind, str) and kind.startswith(("video/", "audio/", "application/ogg", "application/mxf"))


@dataclass(frozen=True)
class _Asked:
    """A question, what came before it, and the clip that all of it is about."""

    question: str
    turns: tuple[Turn, ...]
    system: str | None
    clip: Any


class Omniqa(llm.Model):
    """Answers questions about one attached video or sound."""

    model_id = "omniqa"
    can_stream = True
    attachment_types = MediaTypes({"video/*", "audio/*"})

    class Options(llm.Options):
        """The options of a prompt."""

        model: str | None = Field(None, description="Hub id, folder or nano, without a server. Default: OMNIQA_MODEL.")
        method: str | None = Field(None, description="How tokens are pruned; `omniqa methods` lists the methods.")
        retention: float | None = Field(None, description="Share of audio and video tokens to keep, as 0.3.")
        max_tokens: int | None = Field(None, description="Longest answer, in tokens.")
        temperature: float | None = Field(None, description="0 takes the likeliest token each time.")
        seed: int | None = Field(None, description="Makes draws repeatable.")
        start: float | None = Field(None, description="Where to start, in seconds.")
        end: float | None = Field(None, description="Where to end, in seconds.")
        fps: float | None = Field(None, description="Frames taken a second.")
        max_frames: int | None = Field(None, description="At most so many frames.")

    def __init__(self) -> None:
        self._loaded: tuple[str | None, OmniQA] | None = None
        self._encoded: tuple[Any, EncodedClip] | None = None

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Answer, piece by piece.

        Raises:
            llm.ModelError: there is no clip or more than one, or it can't be answered.
        """
        given = {name: value for name, value in dict(prompt.options).items() if value is not None}
        try:
            asked = _asked(prompt.messages)
            server = os.environ.get("OMNIQA_SERVER")
            if server:
                yield from _from_server(server.rstrip("/"), asked, given, response)
            else:
                yield from self._from_model(asked, given, response)
        except OmniqaError as error:
            raise llm.ModelError(str(error)) from error

    def _from_model(self, asked: _Asked, given: dict[str, Any], response: Any) -> Iterator[str]:
        qa = self._model(given.pop("model", None) or os.environ.get("OMNIQA_MODEL"))
        clip = asked.clip
        sampling = ClipOptions(
            **{name: given[name] for name in _CLIP if name in given}, allow_network=clip.url is not None
        )
        key = clip.id(), sampling
        if self._encoded is not None and self._encoded[0] != key:
            self._encoded = None  # never two of them at a time
        with _file(clip) as path:
            chat = qa.chat(
                self._encoded[1] if self._encoded else path,
                given.get("method", "omnidrop"),
                given.get("retention"),
                sampling=None if self._encoded else sampling,
                decoding=_decoding(given),
                system=OWN_SYSTEM_TEXT if asked.system is None else asked.system,
                turns=asked.turns,
            )
            pieces = chat.stream(asked.question)
            yield from pieces
        if chat.clip is not None and chat.clip.rule is None and chat.clip.video_attention is None:
            self._encoded = key, chat.clip  # it serves the next question in `llm chat`, by whichever method
        if (answer := pieces.answer) is not None:
            tokens = answer.stats.tokens
            response.set_usage(input=tokens.text + tokens.audio + tokens.video, output=tokens.generated)
            response.response_json = {"omniqa": replace(answer, video=path).to_dict()}

    def _model(self, name: str | None) -> "OmniQA":
        """The model, loaded once."""
        if self._loaded is None or self._loaded[0] != name:
            from omniqa.pipeline.load import load

            self._loaded, self._encoded = None, None
            self._loaded = name, load(name, cache=os.environ.get("OMNIQA_CACHE"))
        return self._loaded[1]


def _asked(messages: Any) -> _Asked:
    """The conversation that llm's messages are.

    Raises:
        UsageError: there is no clip or more than one, or it is not in the first question.
    """
    system: list[str] = []
    said: list[str] = []
    clips: list[Any] = []
    for message in messages:
        texts = [part.text for part in message.parts if hasattr(part, "text")]
        found = [part.attachment for part in message.parts if getattr(part, "attachment", None) is not None]
        if message.role == "system":
            system += texts
            continue
        if found and said and found[0].id() != (clips[0].id() if clips else None):
            raise UsageError("The clip is attached to the first question, and a conversation is about one.")
        clips += found if not said else []
        if message.role == ("user" if len(said) % 2 else "assistant"):  # llm keeps no message of an empty answer
            said.append("")
        said.append("\n".join(texts))
    if len(clips) != 1:
        raise UsageError("Attach one video or sound: llm -m omniqa -a clip.mp4 'What happens?'")
    turns = tuple(Turn(*pair) for pair in zip(said[:-1:2], said[1::2], strict=False))
    return _Asked(said[-1], turns, "\n".join(system) or None, clips[0])


@contextmanager
def _file(clip: Any) -> Iterator[str]:
    """The path or address of an attachment; what came through a pipe is in a temporary file meanwhile."""
    with ExitStack() as held:
        if clip.path or clip.url:
            yield clip.path or clip.url
        else:
            yield str(held.enter_context(spool_to_tempfile([clip.content], "the attachment")))


def _decoding(given: dict[str, Any]) -> GenerationOptions:
    names = {"max_tokens": "max_new_tokens", "temperature": "temperature", "seed": "seed"}
    return GenerationOptions(**{ours: given[name] for name, ours in names.items() if name in given})


def _from_server(server: str, asked: _Asked, given: dict[str, Any], response: Any) -> Iterator[str]:
    """The answer of a server, whose clip is uploaded for as long as that takes."""
    import openai

    if "model" in given:
        raise UsageError("The server named by OMNIQA_SERVER has its own model; leave out the option model.")
    client = openai.OpenAI(base_url=f"{server}/v1", api_key=os.environ.get("OMNIQA_API_KEY") or "none")
    try:
        with client, _on_server(client, asked.clip) as url:
            texts = [*(text for turn in asked.turns for text in (turn.question, turn.answer)), asked.question]
            first = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": texts[0]}]
            roles = ("user", "assistant")
            messages: list[Any] = [
                {"role": roles[number % 2], "content": text if number else first} for number, text in enumerate(texts)
            ]
            if asked.system is not None:
                messages.insert(0, {"role": "system", "content": asked.system})
            clip: dict[str, Any] = {name: given.pop(name) for name in _CLIP if name in given}
            more: dict[str, Any] = {name: given.pop(name) for name in ("method", "retention") if name in given}
            chunks = client.chat.completions.create(
                model="omniqa", messages=messages, stream=True, stream_options={"include_usage": True},
                extra_body=more | {"clip": clip}, **given,
            )  # fmt: skip
            for chunk in chunks:
                if chunk.usage is not None:
                    response.set_usage(input=chunk.usage.prompt_tokens, output=chunk.usage.completion_tokens)
                details = (chunk.model_extra or {}).get("omniqa")
                if details is not None:
                    response.response_json = {"omniqa": details}
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
    except openai.APIConnectionError as error:
        raise UsageError(f"The server {server}, which OMNIQA_SERVER names, can't be reached.") from error
    except openai.APIError as error:
        body = error.body if isinstance(error.body, dict) else {}
        raise UsageError(str(body.get("message") or error.message)) from error


@contextmanager
def _on_server(client: Any, clip: Any) -> Iterator[str]:
    """What the server calls an attachment: its address, or the id of an upload."""
    if clip.url:
        yield clip.url
        return
    content = Path(clip.path) if clip.path else ("clip", clip.content)
    file = client.files.create(file=content, purpose="user_data")
    try:
        yield file.id
    finally:
        client.files.delete(file.id)
