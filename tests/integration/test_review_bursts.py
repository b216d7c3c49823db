"""Limits that hold back abuse, met by honest crowds: many requests of one account at the same moment."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient

from app.api.imgprocessing_ids import image_id
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.realtime import REALTIME, body
from tests.servers.processes import Processes
from tests.shelf import Shelf
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


def test_changes_of_huge_images_are_few_at_a_time(
    client: FlaskClient, account: Account, database: Database, storage: Storage
) -> None:
    """Each holds its images until they are written down as inputs: up to six of 48 MB."""
    _, output_id = Shelf(database, storage, account).put(access="private", name="huge")
    rows.execute(database, "UPDATE outputs SET size = 48 * 1024 * 1024")
    bodies = client.application.extensions["darkroom"].bodies
    path = f"/v1/images/{image_id(output_id)}"

    with bodies.reading(account.id, places=11):
        huge = client.post(f"{path}/blur", json={}, headers=account.headers)
        rows.execute(database, "UPDATE outputs SET size = 1000")
        small = client.post(f"{path}/blur", json={}, headers=account.headers)

    assert (huge.status_code, huge.headers["Retry-After"]) == (429, "1")
    assert small.status_code == 415  # what lies there is no image
    assert rows.query(database, "SELECT count(*) AS jobs FROM jobs WHERE operation = 'blur'")[0].jobs == 0
