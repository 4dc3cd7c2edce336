"""/v1/reports: the HTML report of answers that were given lately."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from omniqa import strict_json
from omniqa.errors import OmniqaError
from omniqa.serve.errors import ApiError, bad_request, too_many
from omniqa.serve.fields import Fields
from omniqa.serve.media import MediaSource, named

if TYPE_CHECKING:
    from omniqa.pipeline.answer import Answer

MOST_ANSWERS = 32  # that are kept for reports, of all clients
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class _Given:
    """An answer, and the content of the clip that it is about."""

    answer: "Answer"
    digest: str


class Reports:
    """The answers given last, and reports of them. A report decodes its clip once more, one report at a time.

    Args:
        media: finds the clips again.
    """

    def __init__(self, media: MediaSource) -> None:
        self._media = media
        self._given: OrderedDict[str, _Given] = OrderedDict()
        self._rendering = threading.BoundedSemaphore(1)

    def keep(self, id: str, answer: "Answer", digest: str) -> None:
        """Remember an answer by the id of its completion; the oldest gives way."""
        self._given[id] = _Given(answer, digest)
        while len(self._given) > MOST_ANSWERS:
            self._given.popitem(last=False)

    async def handle(self, request: Request) -> Response:
        """The report of the completions that the request names: {"completions": ["chatcmpl-…"]}.

        Raises:
            ApiError: it names none, or one that is forgotten, or their clip is gone.
        """
        try:
            fields = Fields(strict_json.parse((await request.body()).decode("utf-8")))
        except ValueError as error:
            raise bad_request(f"The request is no JSON: {error}.") from error
        given = self._found(fields.items("completions"))
        fields.end()
        if not self._rendering.acquire(blocking=False):
            raise too_many("reports")
        try:
            page = await asyncio.to_thread(self._page, given)
        finally:
            self._rendering.release()
        headers = {"content-disposition": 'attachment; filename="report.html"', "content-security-policy": _POLICY}
        return Response(page, media_type="text/html", headers=headers)

    def _found(self, ids: Sequence[object]) -> list[_Given]:
        if not ids or not all(isinstance(id, str) for id in ids):
            raise bad_request("Name the completions whose report it shall be.", "completions")
        found = [given for id in ids if (given := self._given.get(str(id))) is not None]
        if len(found) < len(ids):
            raise ApiError(
                404, f"An answer is too old for a report: the last {MOST_ANSWERS} are kept.", "answer_not_found"
            )
        if len({given.digest for given in found}) > 1:
            raise bad_request("A report is about one clip.", "completions")
        return found

    def _page(self, given: list[_Given]) -> str:
        from omniqa.report import render

        answers = [one.answer for one in given]
        with self._media.open_again(str(answers[0].video), given[0].digest) as medium:
            try:
                return render(answers, medium.path)
            except OmniqaError as error:
                raise named(error, medium) from error
