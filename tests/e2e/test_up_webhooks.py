"""`darkroom up` tells a customer's service of a job that ended: over HTTP in, over HTTP out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from standardwebhooks import Webhook

from tests.e2e.test_up import state as state  # noqa: PLC0414 - the fixture
from tests.e2e.test_up import up
from tests.servers.receiver import Receiver, receiving
from tests.waiting import eventually


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.mark.slow
def test_a_service_is_told_of_its_job_with_a_link_to_the_image(state: Path, receiver: Receiver) -> None:
    with up(state, DARKROOM_WEBHOOK_ALLOW="127.0.0.1") as running:
        made = requests.post(
            f"{running.url}/v1/webhooks", json={"url": receiver.url()}, headers=running.headers, timeout=10
        )
        assert made.status_code == 201, made.text
        job_id = running.submit()
        eventually(lambda: receiver.received, within=30)
        (one,) = receiver.received

        told = Webhook(made.json()["secret"]).verify(one.body, one.headers)
        assert (told["type"], told["data"]["id"]) == ("job.completed", job_id)
        (output,) = told["data"]["outputs"]
        image = requests.get(output["url"], timeout=10)
        assert image.headers["Content-Type"] == "image/png"
        assert len(image.content) == output["size"]
