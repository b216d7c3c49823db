"""Requests that schemathesis makes up from our own OpenAPI file: nothing breaks, nothing leaks.

The short form, part of `make test`, sends a dozen requests to each operation; `--long` some hundreds.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import hypothesis
import pytest
import schemathesis
from flask import Flask
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app import web
from app.api import docs
from app.api.operations import Operation
from app.db import connect
from app.settings import Settings
from app.storage import open_store
from tests.conftest import make_account
from tests.drawing import drawing

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
IS_A_STREAM = {"watchJob"}
"""Read to its end elsewhere: a made-up job id answers 404 here, and nothing else can come."""


@dataclass(frozen=True)
class House:
    """A running application, what it says of itself, and a key to it."""

    flask: Flask
    schema: Any
    key: str


@pytest.fixture(scope="module")
def house(base_settings: Settings) -> Iterator[House]:
    settings = base_settings.model_copy(
        update={
            "rate_limit_per_minute": 1_000_000,
            "sync_wait": timedelta(seconds=1),
            "longest_wait": timedelta(seconds=2),
            "max_unfinished_jobs": 1_000_000,
        }
    )
    database = connect(settings, application_name="darkroom tests")
    flask = web.create_app(settings)
    account = make_account(database, settings, "fuzz")
    with contextlib.ExitStack() as ends:
        ends.callback(database.close)
        ends.callback(web.close, flask)
        ends.enter_context(drawing(settings, database, open_store(settings)))
        yield House(flask, schemathesis.openapi.from_wsgi("/openapi.json", flask), account.key)


def checks_of(answer: Any) -> list[Any]:
    """Not yet done in two seconds, or full: a 5xx with Retry-After is an honest answer and no breakage."""
    is_later = answer.status_code in {503, 504} and "retry-after" in answer.headers
    return CHECKS[1:] if is_later else CHECKS


def given_key(case: Any, key: str | None) -> dict[str, str]:
    """The headers for a request with this key, or with none; the body's `key` is made to agree."""
    if isinstance(case.body, dict) and "key" in case.body:
        case.body["key"] = key or ""
    for name in ("X-API-Key", "Authorization", "key", "x-api-key"):
        if case.headers and name in case.headers:
            del case.headers[name]
    return {} if key is None else {"X-API-Key": key}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("operation", docs.OPERATIONS, ids=lambda one: one.name)
def test_no_made_up_request_breaks_it_or_gets_in_without_a_key(
    house: House, operation: Operation, request: pytest.FixtureRequest
) -> None:
    strategy = house.schema[operation.path][operation.method].as_strategy()
    count = 300 if request.config.getoption("--long") else 12

    @hypothesis.settings(
        max_examples=count,
        derandomize=not request.config.getoption("--long"),
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=strategy)
    def ask(case: Any) -> None:
        with_key = case.call(headers=given_key(case, house.key))
        case.validate_response(with_key, checks=checks_of(with_key))
        if operation.secured:
            without = case.call(headers=given_key(case, None))
            assert without.status_code in {400, 401, 413, 415, 429}, (without.status_code, without.text)
            case.validate_response(without, checks=CHECKS)

    ask()
