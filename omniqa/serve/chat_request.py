"""A request for a chat completion, read: the conversation, its clip, and how it is answered."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from omniqa.errors import UsageError
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import OWN_SYSTEM_TEXT, PromptText, Turn
from omniqa.pruning import registry
from omniqa.pruning.contract import AnyMethod
from omniqa.runtime.generation_options import GenerationOptions
from omniqa.serve.errors import ApiError, bad_request, from_omniqa
from omniqa.serve.fields import Fields
from omniqa.serve.settings import ServeSettings

ALIAS = "omniqa"  # a model's name that stands for whichever is served
_MESSAGES = 400  # of one conversation

# Fields of OpenAI's that change nothing here: they may be there, whatever they say.
_IGNORED = ("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
# Those that would change the answer: only the values that change nothing are taken.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,), "stop": ([], ""), "logprobs": (False,), "top_logprobs": (0,), "tools": ([],),
    "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"), "logit_bias": ({},),
    "response_format": ({"type": "text"},), "frequency_penalty": (0,), "presence_penalty": (0,),
    "modalities": (["text"],), "audio": (), "prediction": (), "reasoning_effort": (), "verbosity": (),
    "web_search_options": (),
}  # fmt: skip


@dataclass(frozen=True)
class MediaPart:
    """What a message says of its clip.

    kind: "video_url" with an address, path or file id, or "input_audio" with base64.
    """

    kind: Literal["video_url", "input_audio"]
    value: str


@dataclass(frozen=True)
class ChatRequest:
    """A question, the turns before it, the clip, and how it is answered."""

    prompt: PromptText
    media: MediaPart
    method: AnyMethod
    sampling: ClipOptions
    decoding: GenerationOptions
    stream: bool
    include_usage: bool
    progress: bool


def parse_chat_request(body: Any, model: str, settings: ServeSettings) -> ChatRequest:
    """Read a request's JSON.

    Args:
        body: the value.
        model: the name of the model that is served.
        settings: defaults and limits.

    Raises:
        ApiError: it makes no sense, or asks for what is not served here.
    """
    request = Fields(body)
    _check_model(request.text("model"), model)
    prompt, media = _conversation(request)
    stream = bool(request.flag("stream"))
    more = request.inner("stream_options")
    include_usage = bool(more.flag("include_usage"))
    more.flag("include_obfuscation")
    more.end()
    try:
        method = _method(request, settings)
        sampling = _sampling(request.inner("clip"), settings)
        decoding = _decoding(request, settings)
    except UsageError as error:
        raise from_omniqa(error) from error
    progress = bool(request.flag("progress"))
    _refuse_unsupported(request)
    request.end()
    return ChatRequest(prompt, media, method, sampling, decoding, stream, include_usage, progress)


def _check_model(asked: str | None, model: str) -> None:
    if asked is None:
        raise bad_request("Name a model.", "model")
    if asked not in (model, ALIAS):
        raise ApiError(404, f"There is no model {asked[:100]!r} here; {model} is served.", "model_not_found", "model")


def _conversation(request: Fields) -> tuple[PromptText, MediaPart]:
    messages = [Fields(message, f"messages[{at}]") for at, message in enumerate(request.items("messages"))]
    if not messages:
        raise bad_request("There are no messages.", "messages")
    if len(messages) > _MESSAGES:
        raise bad_request(f"A conversation has at most {_MESSAGES} messages.", "messages")
    system: list[str] = []
    said: list[tuple[str, str]] = []
    media: list[MediaPart] = []
    for message in messages:
        role = message.text("role")
        text, parts = _content(message)
        message.text("name")
        for field in ("refusal", "tool_calls", "function_call", "annotations", "audio", "reasoning_content"):
            message.raw(field)  # what an earlier answer came with
        message.end()
        if parts and (role != "user" or said):
            raise bad_request("The clip must be in the first user message.", "messages")
        media += parts
        if role in ("system", "developer") and not said:
            system.append(text)
        elif role == ("assistant" if len(said) % 2 else "user"):
            said.append((role, text))
        else:
            raise bad_request(
                "After system messages, user and assistant take turns; the last message is the user's.", "messages"
            )
    if len(said) % 2 == 0:
        raise bad_request("The last message must be the user's.", "messages")
    if not media:
        raise bad_request("There is no clip: put a video_url or input_audio into the first user message.", "messages")
    if len(media) > 1:
        raise bad_request("A conversation is about one clip; this one names several.", "messages", "several_clips")
    texts = [text for _, text in said]
    if not all(text.strip() for text in texts[::2]):
        raise bad_request("A question is empty.", "messages")
    turns = tuple(Turn(*pair) for pair in zip(texts[:-1:2], texts[1::2], strict=True))
    prompt = PromptText(texts[-1], system="\n".join(system) if system else OWN_SYSTEM_TEXT, turns=turns)
    return prompt, media[0]


def _content(message: Fields) -> tuple[str, list[MediaPart]]:
    """A message's text, pieces of it on lines of their own, and its media."""
    content = message.raw("content")
    if content is None:
        return "", []
    if isinstance(content, str):
        return content, []
    name = message.name("content")
    if not isinstance(content, list):
        raise bad_request(f"{name} must be a text or a list of parts.", name)
    texts: list[str] = []
    media: list[MediaPart] = []
    for at, item in enumerate(content):
        part = Fields(item, f"{name}[{at}]")
        kind = part.text("type")
        if kind == "text":
            texts.append(part.text("text") or "")
        elif kind == "video_url":
            media.append(MediaPart("video_url", _inner_text(part, kind, "url")))
        elif kind == "input_audio":
            media.append(MediaPart("input_audio", _inner_text(part, kind, "data")))
        else:
            raise bad_request(f"A part of type {kind!r} is not served: text, video_url and input_audio are.", name)
        part.raw("cache_control")
        part.end()
    return "\n".join(texts), media


def _inner_text(part: Fields, kind: str, key: str) -> str:
    inner = part.inner(kind)
    value = inner.text(key)
    inner.rest()  # such as the format of a sound, which its content tells
    if not value:
        raise bad_request(f"{part.name(kind)}.{key} is missing.", part.name(kind))
    return value


def _method(request: Fields, settings: ServeSettings) -> AnyMethod:
    """The method, by name alone: a file of code, as the command line takes it, is not for clients to name."""
    name, retention, options = request.text("method"), request.number("retention"), request.inner("options").rest()
    if name is None and retention is None and not options:
        return settings.method
    name = settings.method.name if name is None else name
    if name not in registry.methods():
        raise bad_request(f"There is no method {name[:100]!r}: {', '.join(registry.names())}.", "method")
    default = settings.method.target if retention is None else float(retention)
    texts = [f"{key}={_option_text(key, value)}" for key, value in options.items()]
    return registry.create(name, default, **registry.parse_options(name, texts))


def _option_text(key: str, value: Any) -> str:
    if not isinstance(value, str | int | float | bool | None):
        raise bad_request(f"options.{key} must be a single value.", f"options.{key}")
    return value if isinstance(value, str) else "none" if value is None else str(value).lower()


def _sampling(clip: Fields, settings: ServeSettings) -> ClipOptions:
    most = settings.sampling
    given: dict[str, Any] = {
        "fps": clip.number("fps"), "max_frames": clip.whole("max_frames"), "min_pixels": clip.whole("min_pixels"),
        "max_pixels": clip.whole("max_pixels"), "total_pixels": clip.whole("total_pixels"),
        "start": clip.number("start"), "end": clip.number("end"), "video": clip.flag("video"),
        "audio": clip.flag("audio"), "audio_track": clip.whole("audio_track"),
    }  # fmt: skip
    clip.end()
    chosen = {name: value for name, value in given.items() if value is not None}
    if "max_pixels" in chosen:  # the model's fewest pixels give way to it
        chosen.setdefault("min_pixels", None)
    asked = replace(most, **chosen, allow_network=False)
    for name in ("max_frames", "min_pixels", "max_pixels"):
        bound = getattr(most, "max_pixels" if name == "min_pixels" else name)
        value = getattr(asked, name)
        if value is not None and bound is not None and value > bound:
            raise bad_request(f"clip.{name} is at most {bound} on this server.", f"clip.{name}")
    return asked


def _decoding(request: Fields, settings: ServeSettings) -> GenerationOptions:
    limit, newer = request.whole("max_tokens"), request.whole("max_completion_tokens")
    given: dict[str, Any] = {
        "max_new_tokens": limit if newer is None else newer, "temperature": request.number("temperature"),
        "top_p": request.number("top_p"), "seed": request.whole("seed"),
    }  # fmt: skip
    return replace(settings.decoding, **{name: value for name, value in given.items() if value is not None})


def _refuse_unsupported(request: Fields) -> None:
    for name in _IGNORED:
        request.raw(name)
    for name, harmless in _UNSUPPORTED.items():
        value = request.raw(name)
        if value is not None and value not in harmless:
            raise bad_request(f"{name} is not served here.", name, "unsupported")
