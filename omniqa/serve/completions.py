"""/v1/chat/completions: a question in, an answer out, whole or as a stream of server-sent events."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, suppress
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from omniqa import json_output, strict_json
from omniqa.pipeline.answer import Answer
from omniqa.serve.chat_request import ChatRequest, parse_chat_request
from omniqa.serve.errors import ApiError, bad_request
from omniqa.serve.exchange import Answerer, ClientGone, Exchange, Piece, Progress
from omniqa.serve.media import MediaSource, Medium
from omniqa.serve.metrics import Metrics
from omniqa.serve.reports import Reports
from omniqa.serve.settings import ServeSettings
from omniqa.serve.turns import TurnQueue

GONE = 499  # the status of a request whose client did not wait for it, as nginx counts it
_READERS = 16  # threads that read clips that clients name
_MAX_VALUES = 200_000  # of a request's JSON
_VALUE_MARKS = (b",", b"[", b"{")  # there are about as many of these as values


class Completions:
    """Answers requests for chat completions.

    Args:
        model: the name of the model that is served.
        settings: defaults and limits.
        answerer: answers in the model's thread.
        turns: the queue in front of it.
        media: finds clips.
        metrics: counts.
        reports: remembers the answers.
    """

    def __init__(
        self,
        model: str,
        settings: ServeSettings,
        answerer: Answerer,
        turns: TurnQueue,
        media: MediaSource,
        metrics: Metrics,
        reports: Reports,
    ) -> None:
        self._model, self._settings, self._answerer = model, settings, answerer
        self._turns, self._media, self._metrics, self._reports = turns, media, metrics, reports
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="omniqa-media")

    def close(self) -> None:
        """End the threads that read clips."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def handle(self, request: Request) -> Response:
        """One request.

        Raises:
            ApiError: it can't be served.
        """
        body = await _whole(request)
        exchange = Exchange(self._turns, self._settings.limits)
        exchange.check_place()
        chat = await self._parsed(body)
        gone = asyncio.ensure_future(_disconnected(request.receive))
        try:
            held, medium = await self._opened(chat, gone)
            exchange.begin(self._answerer, chat, medium, held)
            reply = _Reply(self._model, chat, exchange, partial(self._given, medium.digest))
            events = exchange.events(gone)
            if chat.stream:
                # The status is sent with the first piece, so that what goes wrong before has one of its own.
                first = [] if chat.progress else [await _first(events)]
                return _EventStream(reply.chunks(first, events), events, gone)
            try:
                return JSONResponse(await reply.whole(events))
            finally:
                gone.cancel()
        except ClientGone:
            self._metrics.cancelled.inc()
            return Response(status_code=GONE)
        except BaseException:
            gone.cancel()
            exchange.cancel()
            raise

    async def _parsed(self, body: bytes) -> ChatRequest:
        def parse() -> ChatRequest:
            if sum(map(body.count, _VALUE_MARKS)) > _MAX_VALUES:  # each takes far more memory than its character
                raise bad_request(f"The request has more than {_MAX_VALUES:,} values.", "messages")
            try:
                value = strict_json.parse(body.decode("utf-8"))
            except ValueError as error:  # UnicodeDecodeError among them
                raise bad_request(f"The request is no JSON: {error}.") from error
            return parse_chat_request(value, self._model, self._settings)

        return await asyncio.to_thread(parse)

    def _given(self, digest: str, id: str, answer: Answer) -> None:
        self._metrics.count(answer)
        self._reports.keep(id, answer, digest)

    async def _opened(self, chat: ChatRequest, gone: "asyncio.Task[None]") -> tuple[ExitStack, Medium]:
        """The clip, and what keeps its file there."""

        def open_clip() -> tuple[ExitStack, Medium]:
            held = ExitStack()
            medium = held.enter_context(self._media.open(chat.media, lambda: not gone.done()))
            return held, medium

        opening = asyncio.get_running_loop().run_in_executor(self._readers, open_clip)
        either: set[asyncio.Future[Any]] = {opening, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            opening.add_done_callback(_close_unused)
            raise ClientGone
        return opening.result()


def _close_unused(opening: "asyncio.Future[tuple[ExitStack, Medium]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


async def _whole(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise ApiError(GONE, "The client has gone.") from None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(events: AsyncIterator[Any]) -> Any:
    """The first piece of text, or the answer."""
    async for event in events:
        if isinstance(event, Piece | Answer):
            return event
    raise AssertionError("events end with an answer")


class _Reply:
    """An answer in OpenAI's words; `given` gets it and its id."""

    def __init__(self, model: str, chat: ChatRequest, exchange: Exchange, given: Callable[[str, Answer], None]) -> None:
        self._chat, self._exchange, self._given = chat, exchange, given
        self._head: dict[str, Any] = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._started = False

    async def whole(self, events: AsyncIterator[Any]) -> dict[str, Any]:
        """The object that is the answer."""
        async with aclosing(events) as coming:  # type: ignore[type-var]
            async for event in coming:
                if isinstance(event, Answer):
                    message = {"role": "assistant", "content": event.text, "refusal": None}
                    choice = {"index": 0, "message": message, "finish_reason": self._reason(event), "logprobs": None}
                    return {
                        **self._head, "object": "chat.completion", "choices": [choice], "usage": usage(event),
                        "omniqa": self._details(event),
                    }  # fmt: skip
        raise AssertionError("events end with an answer")

    async def chunks(self, first: list[Any], events: AsyncIterator[Any]) -> AsyncIterator[str]:
        """The answer as server-sent events."""
        yield _event(self._chunk({"role": "assistant", "content": ""}))
        try:
            for event in first:
                for line in self._lines(event):
                    yield line
            if not (first and isinstance(first[-1], Answer)):
                async for event in events:
                    for line in self._lines(event):
                        yield line
        except ApiError as error:  # too late for a status
            yield _event(error.to_dict())
            return
        yield "data: [DONE]\n\n"

    def _lines(self, event: Any) -> list[str]:
        if event is None:
            return [": waiting\n\n"]
        if isinstance(event, Progress):
            told = {"stage": event.stage, "share": event.share}
            return [f"event: progress\n{_event(told)}"] if self._chat.progress else []
        if isinstance(event, Piece):
            text = event.text if self._started else event.text.lstrip()
            self._started = self._started or bool(text)
            return [_event(self._chunk({"content": text}))] if text else []
        last = self._chunk({}, self._reason(event)) | {"omniqa": self._details(event)}
        lines = [_event(last)]
        if self._chat.include_usage:
            lines.append(_event({**self._head, "object": _CHUNK, "choices": [], "usage": usage(event)}))
        return lines

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return {**self._head, "object": _CHUNK, "choices": [choice]}

    def _reason(self, answer: Answer) -> str:
        return "length" if len(answer.token_ids) >= self._chat.decoding.max_new_tokens else "stop"

    def _details(self, answer: Answer) -> dict[str, Any]:
        self._given(self._head["id"], answer)
        told = answer.to_dict()
        names = ("method", "retention", "tokens", "timing_s", "memory", "media", "evidence")
        timing = told["timing_s"]
        timing["total"] -= timing.pop("load") + timing.pop("import")  # the server's start
        details = {name: told[name] for name in names} | {"queue_s": self._exchange.waited_s}
        return json_output.finite(details)


_CHUNK = "chat.completion.chunk"


def usage(answer: Answer) -> dict[str, Any]:
    """Tokens as OpenAI counts them: all of the prompt, also those that were pruned."""
    tokens = answer.stats.tokens
    prompt = tokens.text + tokens.audio + tokens.video
    return {
        "prompt_tokens": prompt, "completion_tokens": tokens.generated, "total_tokens": prompt + tokens.generated,
        "prompt_tokens_details": {"audio_tokens": tokens.audio, "cached_tokens": 0},
    }  # fmt: skip


def _event(value: dict[str, Any]) -> str:
    return f"data: {json_output.dumps(value)}\n\n"


class _EventStream(Response):
    """Lines that are sent as they come, until they end or the client goes."""

    media_type = "text/event-stream"

    def __init__(self, lines: AsyncIterator[str], events: AsyncIterator[Any], gone: "asyncio.Task[None]") -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._lines, self._events, self._gone = lines, events, gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            with suppress(ClientGone):
                async for line in self._lines:
                    await send({"type": "http.response.body", "body": line.encode(), "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._lines.aclose()  # type: ignore[attr-defined]
            await self._events.aclose()  # type: ignore[attr-defined]
            self._gone.cancel()
