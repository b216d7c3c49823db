"""Limits that hold back abuse, met by honest crowds: many requests of one account at the same moment."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from app.settings import Settings
from tests.conftest import Account
from tests.realtime import REALTIME, body
from tests.servers.processes import Processes
from tests.submitter import JOBS

CLIENTS, EACH = 60, 8
PHOTO = {**body("img2img"), "instant_response": True}


@pytest.fixture(scope="module")
def url(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = base_settings.model_copy(update={"rate_limit_per_minute": 1_000_000, "web_threads": 64})
    with Processes(settings, logs=tmp_path_factory.mktemp("web")) as processes:
        _, address = processes.web()
        processes.await_web(address)
        yield address


@pytest.mark.parametrize(
    ("path", "content", "status"), [(JOBS, {"prompt": "a hill"}, 202), (f"{REALTIME}img2img", PHOTO, 200)]
)
def test_nobody_of_a_crowd_is_refused(
    path: str, content: dict[str, Any], status: int, url: str, account: Account
) -> None:
    """A quarter of the threads may read bodies or images for an account; honest ones take milliseconds."""
    is_modelslab = path.startswith(REALTIME)
    sent = {**content, "key": account.key} if is_modelslab else content

    def send_all(_: int) -> list[int]:
        with requests.Session() as session:
            headers = {} if is_modelslab else account.headers
            answers = [session.post(url + path, json=sent, headers=headers, timeout=60) for _ in range(EACH)]
        return [answer.status_code for answer in answers]

    with ThreadPoolExecutor(CLIENTS) as pool:
        told = Counter(each for statuses in pool.map(send_all, range(CLIENTS)) for each in statuses)

    assert told == {status: CLIENTS * EACH}
