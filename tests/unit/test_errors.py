"""The tree of errors: every leaf is complete, and every dialect can show it."""

from collections.abc import Iterator

import pytest
from flask import Flask

from app.api import outputs, realm
from app.errors import DarkroomError, FieldProblem, InvalidFields


def walk(kind: type[DarkroomError]) -> Iterator[type[DarkroomError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from walk(below)


def make(kind: type[DarkroomError]) -> DarkroomError:
    if issubclass(kind, InvalidFields):
        return kind(FieldProblem(field="prompt", message="is required"))
    return kind()


@pytest.mark.parametrize("kind", list(walk(DarkroomError)))
def test_an_error_has_a_sentence_a_code_and_a_form_in_every_dialect(kind: type[DarkroomError]) -> None:
    error = make(kind)

    assert error.message.strip()
    assert error.code == error.code.lower()
    for present in (realm.present_error, outputs.present_error):
        with Flask("test").test_request_context():
            shown = present(error)
        assert shown.status_code == error.http_status
        assert shown.get_json()["error"]["message"] == error.message


def test_no_two_errors_of_different_status_share_a_code() -> None:
    by_code: dict[str, int] = {}
    for kind in walk(DarkroomError):
        assert by_code.setdefault(kind.code, kind.http_status) == kind.http_status, kind


def test_the_tree_on_the_first_page_names_every_error() -> None:
    from app import errors  # noqa: PLC0415 - its text is looked at

    for kind in walk(DarkroomError):
        assert kind.__name__ in (errors.__doc__ or ""), kind
