"""Somebody who speaks Darkroom's own dialect: submits jobs, looks at them, and reads its refusals."""

from typing import Any
from uuid import UUID

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import Account

JOBS = "/v1/jobs"


class Submitter:
    """An account at the door of an application."""

    def __init__(self, client: FlaskClient, account: Account) -> None:
        self.client, self.account = client, account

    def ask(self, method: str, path: str, **options: Any) -> TestResponse:
        """Send a request with the account's key; `headers` come beside it."""
        headers = {**self.account.headers, **options.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **options)

    def submit(self, path: str = JOBS, headers: dict[str, str] | None = None, **body: Any) -> TestResponse:
        """Send a job's body and give the answer, whatever it is."""
        return self.ask("POST", path, json=body, headers=headers or {})

    def made(self, **body: Any) -> dict[str, Any]:
        """Submit a job that is accepted, and give it as it was shown."""
        return shown(self.submit(**body), 202)

    def job(self, job_id: str, query: str = "") -> dict[str, Any]:
        """Give a job as it stands now, or after a wait that the query asks for."""
        return shown(self.ask("GET", f"{JOBS}/{job_id}{query}"))


def shown(answer: TestResponse, status: int = 200) -> dict[str, Any]:
    """Give the object that an answer of this status holds."""
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json, dict)
    return answer.json


def problems(answer: TestResponse) -> dict[str, str]:
    """Give the message for each field of a 422; no word of our tools is in it."""
    error = shown(answer, 422)["error"]
    assert error["code"] == "invalid_fields"
    for jargon in ("Input should", "pydantic", "Value error", "None"):
        assert jargon not in error["message"]
    return {detail["field"]: detail["message"] for detail in error["details"]}


def row_id(shown_id: str) -> UUID:
    """Give the id in the table of a job or an output as it is shown."""
    return UUID(hex=shown_id.partition("_")[2])
