"""Errors as RFC 9457 says: `application/problem+json`, one sentence in `detail`."""

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from consistentid.errors import ConsistentIDError
from consistentid.web.errors import ServingError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_UNPROCESSABLE = 422


class WrongValue(BaseModel):
    """One value of a request that is wrong.

    Attributes:
        field: its name, with dots.
        reason: what is wrong with it.
    """

    model_config = ConfigDict(extra="forbid")

    field: str
    reason: str


class Problem(BaseModel):
    """Why a request was not answered.

    Attributes:
        type: a URN for each kind of problem.
        title: of the HTTP status.
        status: of the HTTP response.
        detail: what is wrong, and what to do, in one sentence.
        errors: the values that are wrong, when there are any.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:consistentid:problem:no-face-found",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "detail": "no face in the photo; give a photo in which a face looks at the camera",
                }
            ]
        },
    )

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, lt=600)
    detail: str
    errors: list[WrongValue] | None = None


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems of a route, for its OpenAPI description."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": title(status), "content": content} for status in statuses}


def title(status: int) -> str:
    """The usual words for an HTTP status."""
    from http import HTTPStatus

    return "Unprocessable Content" if status == _UNPROCESSABLE else HTTPStatus(status).phrase


def install(app: FastAPI) -> None:
    """Answer every error of an app with a problem."""
    app.add_exception_handler(ConsistentIDError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)


def _respond(status: int, detail: str, *, kind: str = "", headers: Any = None, errors: Any = None) -> Response:
    problem = Problem(
        type=f"urn:consistentid:problem:{kind}" if kind else "about:blank",
        title=title(status),
        status=status,
        detail=detail,
        errors=errors,
    )
    return JSONResponse(problem.model_dump(exclude_none=True), status, media_type=MEDIA_TYPE, headers=headers)


def _refused(request: Request, error: Exception) -> Response:
    del request
    status = error.status if isinstance(error, ServingError) else _UNPROCESSABLE
    headers = {}
    if isinstance(error, ServingError) and error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    kind = re.sub(r"(?<=.)(?=[A-Z])", "-", type(error).__name__).lower()
    return _respond(status, str(error), kind=kind, headers=headers)


def _invalid(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, RequestValidationError | ValidationError)
    wrong = [
        WrongValue(
            field=".".join(str(part) for part in each["loc"]) or "body",
            reason=str(each["msg"]).removeprefix("Value error, "),
        )
        for each in error.errors()
    ]
    detail = "; ".join(f"{each.field}: {each.reason}" for each in wrong[:5])
    return _respond(_UNPROCESSABLE, detail, kind="invalid-request", errors=wrong)


def _http(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)
    return _respond(error.status_code, str(error.detail), headers=error.headers)


def _failed(request: Request, error: Exception) -> Response:
    del request, error  # the server logs it
    return _respond(500, "the server failed; its log says why", kind="server-failed")
