"""What a client is told when it gets no answer: a status and OpenAI's error JSON."""

from typing import Any


class ApiError(Exception):
    """A request that is not answered. `param`: the field that is to blame; `code`: a word for programs."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        # seconds after which asking again makes sense
        self.retry_after: int | None = None

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def refused(param: str, message: str, code: str | None = None) -> ApiError:
    """Return a 400 that names the field."""
    return ApiError(400, f"{param}: {message}", param, code)
