"""The shape of every error of Darkroom's own endpoints."""

from flask import Response
from pydantic import BaseModel

from app.api import http
from app.errors import DarkroomError, InvalidFields


class Problem(BaseModel):
    """One field that cannot stay as it is."""

    field: str
    message: str


class ErrorBody(BaseModel):
    """What went wrong: a code for programs, a sentence for people, and the fields concerned."""

    code: str
    message: str
    details: list[Problem]


class ErrorShown(BaseModel):
    """The shape of every error of Darkroom's own endpoints."""

    error: ErrorBody


def present_error(error: DarkroomError) -> Response:
    """Give any error in the shape of our own endpoints."""
    problems = error.problems if isinstance(error, InvalidFields) else ()
    body = ErrorShown(
        error=ErrorBody(
            code=error.code,
            message=error.message,
            details=[Problem(field=p.field, message=p.message) for p in problems],
        )
    )
    return http.json_response(body.model_dump(mode="json"), error.http_status)
