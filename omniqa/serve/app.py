"""The server's app: its routes, and how errors leave them."""

import asyncio
import logging
import mimetypes
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from omniqa import __version__
from omniqa.serve.chat_request import ALIAS
from omniqa.serve.clips import ClipStore
from omniqa.serve.completions import Completions
from omniqa.serve.errors import ApiError, bad_request, too_many
from omniqa.serve.exchange import Answerer
from omniqa.serve.guard import UPLOADS, Guard
from omniqa.serve.media import MediaSource, path_of
from omniqa.serve.metrics import Metrics
from omniqa.serve.reports import Reports
from omniqa.serve.settings import ServeSettings
from omniqa.serve.turns import TurnQueue

if TYPE_CHECKING:
    from omniqa.pipeline.engine import OmniQA

_LOG = logging.getLogger("omniqa.serve")
_UPLOADS_AT_ONCE = 4
_PIECE = 2**20
_PAGE = {  # where each file of the page is, and its type; the timeline is the report's
    "index.html": ("omniqa.serve", "page", "text/html"),
    "page.js": ("omniqa.serve", "page", "text/javascript"),
    "page.css": ("omniqa.serve", "page", "text/css"),
    "timeline.js": ("omniqa.report", "assets", "text/javascript"),
    "timeline.css": ("omniqa.report", "assets", "text/css"),
}


class Server:
    """One model behind HTTP.

    Attributes:
        app: for an ASGI server.
        media: the clips that clients can name.
        turns: the queue in front of the model.
        clips: encoded clips in memory.
    """

    def __init__(self, qa: "OmniQA", settings: ServeSettings) -> None:
        self._settings = settings = replace(settings, sampling=settings.sampling.within(qa.pixels))
        self._model, self._started = Path(qa.name).name if Path(qa.name).is_absolute() else qa.name, int(time.time())
        self.media = MediaSource(settings)
        self.turns = TurnQueue(settings.limits.queued)
        self.clips = ClipStore(qa, settings.limits.clip_bytes)
        self._metrics = Metrics()
        self._watch()
        answerer = Answerer(qa, self.clips, settings.limits)
        self._reports = Reports(self.media)
        self._completions = Completions(
            self._model, settings, answerer, self.turns, self.media, self._metrics, self._reports
        )
        self._uploads = threading.BoundedSemaphore(_UPLOADS_AT_ONCE)
        self._ending = False
        self.app = Guard(self._routes(), settings, self._count)

    def close(self) -> None:
        """End the turn at hand, and delete what clients have sent."""
        self._ending = True
        self.turns.close()
        self._completions.close()
        self.media.store.close()

    def _watch(self) -> None:
        watch = self._metrics.watch
        watch("omniqa_queue_length", "Questions that wait.", lambda: self.turns.waiting)
        watch("omniqa_busy", "Whether a question is being answered.", lambda: float(self.turns.is_busy))
        watch("omniqa_clips", "Encoded clips in memory.", lambda: len(self.clips))
        watch("omniqa_clip_hits", "Questions whose clip was in memory.", lambda: self.clips.hits)
        watch("omniqa_clip_misses", "Questions whose clip was not.", lambda: self.clips.misses)

    def _count(self, path: str, status: int) -> None:
        parts = path.split("/")
        known = path if path in _COUNTED else "/".join(parts[:3])
        self._metrics.requests.labels(known if known in _COUNTED else "other", status).inc()

    def _routes(self) -> FastAPI:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.close)

        app = FastAPI(title="omniqa", version=__version__, docs_url=None, redoc_url=None, openapi_url=None,
                      lifespan=lifespan)  # fmt: skip
        routes: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", "/health", self._health),
            ("GET", "/metrics", self._prometheus),
            ("GET", "/v1/models", self._models),
            ("GET", "/v1/models/{name:path}", self._one_model),
            ("POST", "/v1/chat/completions", self._completions.handle),
            ("POST", "/v1/reports", self._reports.handle),
            ("POST", UPLOADS, self._upload),
            ("GET", UPLOADS, self._files),
            ("GET", UPLOADS + "/{id}", self._file),
            ("DELETE", UPLOADS + "/{id}", self._delete),
            ("GET", UPLOADS + "/{id}/content", self._content),
            ("GET", "/v1/media", self._media_files),
            ("GET", "/v1/media/{path:path}", self._media_file),
            ("GET", "/", self._index),
            ("GET", "/page/{name}", self._page),
        ]
        for method, path, handler in routes:
            app.router.add_route(path, handler, methods=[method])
        app.add_exception_handler(ApiError, _tell)
        app.add_exception_handler(HTTPException, _tell_http)
        app.add_exception_handler(Exception, _tell_fault)
        return app

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ending" if self._ending else "ok"}, 503 if self._ending else 200)

    async def _prometheus(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _one_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in (self._model, ALIAS):
            raise ApiError(404, f"There is no model {name[:100]!r} here; {self._model} is served.", "model_not_found")
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        return {"id": self._model, "object": "model", "created": self._started, "owned_by": "omniqa"}

    async def _upload(self, request: Request) -> Response:
        if not self._uploads.acquire(blocking=False):
            raise too_many("uploads")
        try:
            async with request.form(max_files=1, max_fields=20) as form:
                upload = form.get("file")
                if not isinstance(upload, UploadFile):
                    raise bad_request("The form has no file.", "file")
                file = upload.file
                stored = await asyncio.to_thread(
                    self.media.store.add_file, _file_name(upload.filename), iter(lambda: file.read(_PIECE), b"")
                )
        except ClientDisconnect as error:
            raise bad_request("The upload broke off.", "file") from error
        finally:
            self._uploads.release()
        return JSONResponse(stored.to_dict())

    async def _files(self, request: Request) -> Response:
        data = [file.to_dict() for file in self.media.store.files()]
        return JSONResponse({"object": "list", "data": data, "has_more": False})

    async def _file(self, request: Request) -> Response:
        return JSONResponse(self.media.store.file(request.path_params["id"]).to_dict())

    async def _delete(self, request: Request) -> Response:
        id = request.path_params["id"]
        self.media.store.delete(id)
        return JSONResponse({"id": id, "object": "file", "deleted": True})

    async def _content(self, request: Request) -> Response:
        file = self.media.store.file(request.path_params["id"])
        held = ExitStack()
        path = held.enter_context(self.media.store.used(file.digest))
        return _HeldFile(path, held, file.name)

    async def _media_files(self, request: Request) -> Response:
        root = self.media.root
        names = [] if root is None else await asyncio.to_thread(root.list)
        return JSONResponse({"object": "list", "data": [{"path": name} for name in names]})

    async def _media_file(self, request: Request) -> Response:
        root, path = self.media.root, request.path_params["path"]
        if root is None:
            raise ApiError(404, "This server has no media root.", "file_not_found")
        held = ExitStack()
        file, _ = held.enter_context(root.open(path))
        return _HeldFile(path_of(file), held, path)

    async def _index(self, request: Request) -> Response:
        return _page_file("index.html")

    async def _page(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _PAGE:
            raise ApiError(404, "There is no such page.")
        return _page_file(name)


_COUNTED = frozenset(
    {"/", "/health", "/metrics", "/v1/models", "/v1/files", "/v1/media", "/v1/chat/completions", "/v1/reports", "/page"}
)


class _HeldFile(FileResponse):
    """A file that is there until the response is over; by ranges, as players ask."""

    def __init__(self, path: Path, held: ExitStack, name: str) -> None:
        kind = mimetypes.guess_type(name)[0] or ""
        plays = kind.startswith(("video/", "audio/"))
        super().__init__(path, media_type=kind if plays else "application/octet-stream")
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._held:
            await super().__call__(scope, receive, send)


def _page_file(name: str) -> Response:
    package, folder, kind = _PAGE[name]
    content = files(package).joinpath(folder, name).read_bytes()
    return Response(content, media_type=kind, headers={"cache-control": "no-cache"})


def _file_name(given: str | None) -> str:
    """What an upload is called, without folders and control characters."""
    name = (given or "").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in name if character.isprintable())[:200] or "clip"


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.to_dict(), error.status, error.headers)


async def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, str(error.detail), headers=error.headers)
    return JSONResponse(told.to_dict(), told.status, told.headers)


async def _tell_fault(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s", request.method, request.url.path, exc_info=error)
    told = ApiError(500, "This is a fault in omniqa; the server's log has more.", headers={"x-should-retry": "false"})
    return JSONResponse(told.to_dict(), told.status, told.headers)
