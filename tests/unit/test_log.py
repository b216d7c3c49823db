"""Logs: one format for everybody's records, and no secret in them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app import log


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    log.configure(log_format="json", level="info")
    stream = io.StringIO()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield stream
    root.handlers[:], root.level = before, level
    structlog.reset_defaults()


def test_an_event_is_one_json_object_with_its_fields(lines: io.StringIO) -> None:
    log.get_logger("somewhere").info("job_done", job_id="1", seconds=0.5)

    (record,) = (json.loads(line) for line in lines.getvalue().splitlines())
    assert {"event": "job_done", "job_id": "1", "seconds": 0.5, "level": "info"}.items() <= record.items()


def test_other_libraries_records_have_the_same_form(lines: io.StringIO) -> None:
    logging.getLogger("celery").warning("went %s", "wrong")

    assert json.loads(lines.getvalue())["event"] == "went wrong"


@pytest.mark.parametrize("name", ["api_key", "secret", "password", "Authorization", "token"])
def test_a_field_that_is_named_like_a_secret_is_hidden(lines: io.StringIO, name: str) -> None:
    log.get_logger("somewhere").info("careless", **{name: "hush"})

    assert "hush" not in lines.getvalue()
