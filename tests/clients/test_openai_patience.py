"""What the official `openai` client does when an answer does not come, and that it buys nothing twice."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import openai
import pytest
from openai import OpenAI

from app.db import Database
from app.errors import DarkroomError, ProviderRefused
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.openai_images import SMALL, jobs, mask_with_hole, noise, opened, png
from tests.serving import serving
from workers import providers
from workers.providers.base import Attempt, Inputs, Picture, Provider

Serve = Callable[..., Any]


@pytest.fixture
def serve(settings: Settings, database: Database, storage: Storage, account: Account) -> Serve:
    """Serve with some settings changed, and give the client of an account there."""

    @contextmanager
    def serve(
        *, provider: Provider | None = None, client: dict[str, Any] | None = None, **changes: Any
    ) -> Iterator[OpenAI]:
        changed = settings.model_copy(update=changes)
        load = providers.load if provider is None else lambda _: provider
        with (
            serving(changed, database, storage, provider=load) as url,
            OpenAI(base_url=f"{url}/v1", api_key=account.key, **(client or {})) as made,
        ):
            yield made

    return serve


class Slow:
    """Draws as the sketch does, after a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sketch = providers.load("sketch")

    def generate(self, spec: Any, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        threading.Event().wait(self._seconds)
        yield from self._sketch.generate(spec, inputs, attempt)

    def close(self) -> None:
        """Keep nothing."""


class Failing:
    """Raises the same error for every job."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def generate(self, spec: Any, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        del spec, inputs, attempt
        raise self._error

    def close(self) -> None:
        """Keep nothing."""


def test_too_many_requests_are_a_rate_limit_error(serve: Serve) -> None:
    with serve(rate_limit_per_minute=2, client={"max_retries": 0}) as client:
        list(client.models.list())
        list(client.models.list())
        with pytest.raises(openai.RateLimitError) as refused:
            client.images.generate(prompt="a hill")

    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 61


def test_too_many_unfinished_jobs_are_a_rate_limit_error(
    serve: Serve, account: Account, database: Database
) -> None:
    rows.insert_job(database, account.id, run_at="now() + interval '1 hour'")
    with (
        serve(max_unfinished_jobs=1, client={"max_retries": 0}) as client,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        client.images.generate(prompt="a hill")

    assert refused.value.code == "rate_limit_exceeded"
    assert "unfinished" in refused.value.message


# What the client does by itself: it sends a request again, up to twice, and names no Idempotency-Key


def test_a_job_that_takes_longer_than_one_request_is_waited_for_by_the_next(
    serve: Serve, database: Database
) -> None:
    with serve(provider=Slow(1.6), longest_wait=timedelta(seconds=1)) as client:
        answer = client.images.generate(prompt="a hill", size=SMALL)

    assert opened(answer).size == (64, 48)
    assert jobs(database) == 1


def test_a_request_given_up_by_the_client_is_joined_by_its_repetition(
    serve: Serve, database: Database
) -> None:
    with serve(provider=Slow(1.2), client={"timeout": 0.7}) as client:
        answer = client.images.generate(prompt="a hill", size=SMALL)

    assert opened(answer).size == (64, 48)
    assert jobs(database) == 1


def test_an_edit_sent_again_is_joined_too(serve: Serve, database: Database) -> None:
    with serve(provider=Slow(1.6), longest_wait=timedelta(seconds=1)) as client:
        client.images.edit(image=png(noise()), mask=png(mask_with_hole()), prompt="a balloon")

    assert jobs(database) == 1


def test_a_client_that_gives_up_has_bought_one_job_and_is_told_which(
    serve: Serve, database: Database
) -> None:
    with serve(provider=Slow(2.5), longest_wait=timedelta(seconds=0.2), client={"max_retries": 1}) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            client.images.generate(prompt="a hill", size=SMALL)
        (job,) = rows.query(database, "SELECT id FROM jobs")

    assert refused.value.status_code == 504
    assert refused.value.code == "not_done_in_time"
    assert f"/v1/jobs/job_{job.id.hex}" in refused.value.message


@pytest.mark.parametrize(
    ("error", "raised", "code"),
    [
        (ProviderRefused("too dark for us"), openai.BadRequestError, "provider_refused"),
        (DarkroomError("something rare"), openai.InternalServerError, "internal_error"),
    ],
)
def test_a_job_that_failed_is_not_bought_again(
    serve: Serve, database: Database, error: Exception, raised: type[openai.APIStatusError], code: str
) -> None:
    with serve(provider=Failing(error)) as client, pytest.raises(raised) as refused:
        client.images.generate(prompt="a hill", size=SMALL)

    assert refused.value.code == code
    assert str(error) in refused.value.message
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert jobs(database) == 1
