"""Errors as the API says them: a status, and an object as OpenAI's clients expect it."""

from collections.abc import Mapping
from typing import Any

from omniqa.errors import MediaError, ModelError, OmniqaError, OutOfMemoryError, UsageError

NO_RETRY = {"x-should-retry": "false"}  # OpenAI's clients would ask twice more after any 5xx
CLOSE = {"connection": "close"}


class ApiError(Exception):
    """A request that can't be served.

    Attributes:
        status: of HTTP.
        message: one sentence for the user.
        code: a word for programs; None has none.
        param: the field at fault; None is none.
        headers: further ones of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """The response's body."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(self.status, kind)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """The error about a request that makes no sense."""
    return ApiError(400, message, code, param)


def too_many(what: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """The error about more than the server handles at once."""
    return ApiError(
        429, f"Too many {what} at once.", "rate_limit_exceeded", headers={"retry-after": "1"} | dict(headers or {})
    )


def from_omniqa(error: OmniqaError) -> ApiError:
    """What an error of the library is to a client: the client's own fault, or the server's."""
    message = str(error)
    if isinstance(error, UsageError):
        return bad_request(message, error.field)
    if isinstance(error, MediaError):
        return bad_request(message, code="media")
    if isinstance(error, OutOfMemoryError):
        return ApiError(507, message, "out_of_memory", headers=NO_RETRY)
    code = "model" if isinstance(error, ModelError) else None
    return ApiError(500, message, code, headers=NO_RETRY)
