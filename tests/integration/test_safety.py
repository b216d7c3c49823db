"""Pictures of any provider on their way past a checker, on a real database and a real store."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image

from app.db import Database, bell
from app.domain.spec import JobSpec
from app.settings import Settings
from app.storage import Storage
from tests import checkers, rows
from tests.checkers import BAD, GOOD
from tests.conftest import Account
from tests.servers import strangers
from tests.servers.strangers import Script
from workers.leases import Leases
from workers.providers.base import Attempt, Inputs, Picture
from workers.runner import Kind, Runner


@dataclass
class Upstream:
    """A provider that delivers pictures of given colours, as one over HTTP does."""

    colours: tuple[str, ...]
    name: str = "upstream"

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        del inputs
        for index, colour in enumerate(self.colours):
            attempt.check()
            image = checkers.picture(colour, (spec.width, spec.height))
            yield Picture(image=image, seed=spec.seed_of(index))


@dataclass
class Studio:
    """A worker that lets a checker look at whatever the upstream delivers."""

    settings: Settings
    database: Database
    storage: Storage
    account: Account

    def run(self, *colours: str, **wished: Any) -> tuple[Kind | None, UUID]:
        """Run a job for pictures of these colours; gives how it ended and its id."""
        spec = rows.make_spec(num_images=len(colours), **{"safety_checker": True, **wished})
        job_id = rows.insert_job(self.database, self.account.id, spec=spec)
        doorbell = bell.Doorbell(self.database)
        leases = Leases(
            self.settings,
            self.database,
            queues=["cpu"],
            slots=1,
            is_draining=lambda: False,
            doorbell=doorbell,
        )
        upstream = Upstream(colours)
        runner = Runner(
            self.settings,
            database=self.database,
            storage=self.storage,
            providers=lambda _: upstream,
            leases=leases,
            doorbell=doorbell,
        )
        with contextlib.closing(runner):
            return runner.run(job_id), job_id

    def flagged(self) -> list[bool | None]:
        return [o.flagged for o in rows.query(self.database, 'SELECT flagged FROM outputs ORDER BY "index"')]

    def stored(self, job_id: UUID) -> list[Image.Image]:
        """Every picture of the job that lies in the store, whether a row knows it or not."""
        keys = [found.key for found in self.storage.list("outputs/") if str(job_id) in found.key]
        return [Image.open(io.BytesIO(self.storage.get(key))).convert("RGB") for key in keys]


@pytest.fixture
def studio(
    settings: Settings, database: Database, storage: Storage, account: Account
) -> Callable[..., Studio]:
    def make(**changes: Any) -> Studio:
        return Studio(settings.model_copy(update=changes), database, storage, account)

    return make


def colours_of(images: list[Image.Image]) -> set[Any]:
    return {image.resize((1, 1)).getpixel((0, 0)) for image in images}


def test_of_an_upstreams_pictures_the_flagged_ones_are_blank_and_never_stored_as_they_were(
    studio: Callable[..., Studio],
) -> None:
    with strangers.stranger(checkers.service()) as service:
        house = studio(safety_url=service.url)
        kind, job_id = house.run(GOOD, BAD, GOOD)

    assert kind is Kind.COMPLETED
    assert house.flagged() == [False, True, False]
    assert len(service.requests) == 3
    stored = house.stored(job_id)
    assert len(stored) == 3
    assert colours_of(stored) == {(0, 0, 255), (0, 0, 0)}


def test_the_checker_sees_the_picture_and_not_the_stamp_of_a_test_key(studio: Callable[..., Studio]) -> None:
    with strangers.stranger(checkers.service()) as service:
        house = studio(safety_url=service.url)
        house.run(GOOD, test=True, width=64, height=64)

    sent = Image.open(io.BytesIO(service.requests[0].partition(b"\r\n\r\n")[2]))
    assert sent.getcolors() == [(64 * 64, (0, 0, 255))]
    assert house.flagged() == [False]


def test_a_model_in_a_folder_looks_at_an_upstreams_pictures_too(
    studio: Callable[..., Studio], tmp_path: Path
) -> None:
    pytest.importorskip("diffusers", reason="the extra gpu is not installed")
    house = studio(safety_folder=checkers.safety_checker(tmp_path))

    kind, job_id = house.run(BAD, GOOD, safety_checker_type="blur")

    assert kind is Kind.COMPLETED
    assert house.flagged() == [True, False]
    assert len(house.stored(job_id)) == 2


def test_nobody_looks_at_pictures_of_a_job_that_does_not_ask_for_it(studio: Callable[..., Studio]) -> None:
    with strangers.stranger(checkers.service()) as service:
        house = studio(safety_url=service.url)
        house.run(BAD, safety_checker=False)

    assert house.flagged() == [None]
    assert service.requests == []


@pytest.mark.parametrize(
    "script",
    [strangers.says(b""), strangers.answers(b"{}"), strangers.answers(status="500 Broken")],
    ids=["nothing", "no-verdict", "500"],
)
def test_what_could_not_be_looked_at_is_not_stored_and_tried_again_uncharged(
    script: Script, studio: Callable[..., Studio]
) -> None:
    with strangers.stranger(script) as service:
        house = studio(safety_url=service.url)
        kind, job_id = house.run(GOOD)

    row = rows.job(house.database, job_id)
    assert kind is Kind.RETRY
    assert (row.status, row.error_code, row.failures) == ("queued", "safety_unavailable", 0)
    assert "127.0.0.2" not in row.error_message
    assert house.stored(job_id) == []


def test_a_missing_folder_is_an_outage_and_no_clean_bill(
    studio: Callable[..., Studio], tmp_path: Path
) -> None:
    house = studio(safety_folder=tmp_path / "unmounted")

    kind, job_id = house.run(GOOD)

    assert kind is Kind.RETRY
    assert house.stored(job_id) == []
    (event,) = rows.query(house.database, "SELECT detail FROM job_events WHERE reason = 'retry'")
    assert "DARKROOM_SAFETY_FOLDER" in event.detail["error_message"]


def test_without_a_checker_an_image_is_delivered_and_not_called_checked(
    studio: Callable[..., Studio],
) -> None:
    house = studio()

    assert house.run(BAD)[0] is Kind.COMPLETED
    assert house.flagged() == [None]


def test_where_a_check_is_required_a_job_fails_at_once_rather_than_be_delivered_unchecked(
    studio: Callable[..., Studio],
) -> None:
    house = studio(safety_required=True)

    kind, job_id = house.run(GOOD)

    row = rows.job(house.database, job_id)
    assert kind is Kind.FAILED
    assert (row.error_code, row.attempt) == ("safety_unavailable", 1)
    assert row.error_message.startswith("Nobody looks at images on this installation")
    assert house.stored(job_id) == []
    assert house.run(GOOD, safety_checker=False)[0] is Kind.COMPLETED
