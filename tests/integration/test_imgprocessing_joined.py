"""Requests of IMG Processing's clients that wait, come twice, come together, or come to nothing.

Its client gives up after 60 seconds and sends the same request again, up to twice. None of that may make a
second image; and whoever really wants one more gets it a minute later.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from PIL import Image
from werkzeug.test import TestResponse

from app import auth, web
from app.api import imgprocessing_making
from app.db import Database
from app.domain.spec import JobSpec
from app.errors import DarkroomError, ProviderDown, ProviderRefused
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.album import IMAGES, Person, key_of, made, problem
from tests.drawing import drawing
from tests.factories import NOTHING, picture, written
from tests.waiting import eventually
from workers.providers.base import Attempt, Inputs, Picture

BODY = {"name": "cat", "prompt": "a cat"}
IMAGINE = f"{IMAGES}/imagine"


@dataclass
class Painter:
    """A provider that paints one flat colour once it may, or fails as a test says."""

    may_paint: threading.Event = field(default_factory=threading.Event)
    fails_with: Callable[[], DarkroomError] | None = None
    painted: int = 0
    name: str = "painter"

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        del inputs
        while not self.may_paint.wait(0.01):
            attempt.check()
        if self.fails_with is not None:
            raise self.fails_with()
        self.painted += 1
        yield Picture(image=Image.new("RGB", (spec.width, spec.height), (self.painted, 0, 0)), seed=spec.seed)


@dataclass
class House:
    """A web application whose requests wait as long as a test wants, with or without a worker beside it."""

    settings: Settings
    database: Database
    storage: Storage
    ends: ExitStack
    painter: Painter = field(default_factory=Painter)

    def open(self, **changes: Any) -> Flask:
        flask = web.create_app(self.settings.model_copy(update=changes))
        self.ends.callback(web.close, flask)
        return flask

    def person(self, flask: Flask, *, prefix: str = auth.LIVE_PREFIX) -> Person:
        return Person(flask.test_client(), key_of(self.database, self.settings, "alice", prefix=prefix))

    def work(self, *, ready: bool = True) -> None:
        """Start a worker; with `ready` unset it waits for the painter's leave."""
        if ready:
            self.painter.may_paint.set()
        self.ends.enter_context(
            drawing(self.settings, self.database, self.storage, provider=lambda _: self.painter)
        )

    def jobs(self) -> list[Any]:
        return rows.query(self.database, "SELECT * FROM jobs ORDER BY id")


@pytest.fixture
def house(settings: Settings, database: Database, storage: Storage) -> Iterator[House]:
    with ExitStack() as ends:
        made = House(settings.model_copy(update={"max_attempts": 1}), database, storage, ends)
        ends.callback(made.painter.may_paint.set)
        yield made


def imagine(person: Person, **body: Any) -> TestResponse:
    headers = body.pop("headers", {})
    return person.post(IMAGINE, json={**BODY, **body}, headers=headers)


# Not done in time


def test_what_takes_too_long_answers_503_and_the_same_request_goes_on_waiting(house: House) -> None:
    person = house.person(house.open(longest_wait=timedelta(seconds=0.2)))
    patient = Person(house.open().test_client(), person.key)

    early = [imagine(person) for _ in range(2)]
    house.work()
    image = made(imagine(patient))

    for answer in early:
        told = problem(answer, 503)
        assert told["message"] == (
            "It is still being made; send the same request again to go on waiting for it."
        )
        assert answer.headers["Retry-After"] == "1"
    assert len(house.jobs()) == 1
    assert made(imagine(patient)) == image


def test_a_wait_that_ran_out_keeps_the_job_joined_for_another_minute(house: House) -> None:
    person = house.person(house.open(longest_wait=timedelta(seconds=0.2)))
    left = "SELECT expires_at - now() AS left FROM idempotency_keys"
    imagine(person)
    rows.execute(house.database, "UPDATE idempotency_keys SET expires_at = now() + interval '5 seconds'")

    imagine(person)

    assert timedelta(seconds=50) < rows.query(house.database, left)[0].left <= timedelta(seconds=60)
    assert len(house.jobs()) == 1


def test_nobody_waits_longer_than_the_vendors_client_does() -> None:
    patience = imgprocessing_making._PATIENCE

    assert Settings.model_fields["longest_wait"].default <= patience < timedelta(seconds=60)


def test_without_a_place_to_wait_in_nothing_is_written_down(house: House) -> None:
    flask = house.open(max_waits=1)
    person = house.person(flask)

    with flask.extensions["darkroom"].waits.place(uuid4()):
        answer = imagine(person)
        upload = person.send(picture())

    for refused in (answer, upload):
        assert problem(refused, 503)
        assert refused.headers["Retry-After"] == "2"
    assert written(house.database, house.storage) == NOTHING


# Twice


def test_the_same_request_within_a_minute_gets_the_same_image(house: House) -> None:
    person = house.person(house.open())
    house.work()

    image = made(imagine(person))

    assert made(imagine(person)) == image
    assert made(imagine(person, seed=None, unknown="x")) == image
    assert person.upload(name="a") == person.upload(name="a")
    source = person.upload(name="b")
    assert made(person.change(source, "blur", sigma=2)) == made(person.change(source, "blur", sigma=2.0))
    assert len(house.jobs()) == 4
    assert written(house.database, house.storage)["orphans"] == 0


def test_a_minute_later_it_makes_another_image(house: House) -> None:
    person = house.person(house.open())
    house.work()
    image = made(imagine(person))
    left = rows.query(house.database, "SELECT expires_at - now() AS left FROM idempotency_keys")[0].left
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)
    rows.execute(house.database, "UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")

    another = made(imagine(person))

    assert another["id"] != image["id"]
    assert made(imagine(person)) == another


def test_whatever_differs_makes_an_image_of_its_own(house: House) -> None:
    flask = house.open()
    person, other_key = house.person(flask), house.person(flask)
    house.work()

    images = [
        made(imagine(person)),
        made(imagine(person, name="dog")),
        made(imagine(person, seed=1)),
        made(imagine(other_key)),
        person.upload(),
        person.upload(name="x"),
        person.upload(picture(9, 9)),
    ]
    images += [made(person.change(image, "blur")) for image in images[:2]]
    images += [made(person.change(images[0], "mirror", mode=mode)) for mode in ("both", "vertical")]

    assert len({image["id"] for image in images}) == len(images) == len(house.jobs())


def test_a_test_key_and_a_live_key_never_share_an_image(house: House) -> None:
    flask = house.open()
    live, test = house.person(flask), house.person(flask, prefix=auth.TEST_PREFIX)
    house.work()

    for headers in ({}, {"Idempotency-Key": "order-1"}):
        images = [made(imagine(person, headers=headers)) for person in (live, test)]
        assert images[0]["id"] != images[1]["id"]
        assert problem(test.show(images[0]), 404)


# Together


@pytest.mark.parametrize("way", ["imagine", "upload"])
def test_twins_that_arrive_together_make_one_job_and_get_one_image(way: str, house: House) -> None:
    flask = house.open()
    key = house.person(flask).key
    together = threading.Barrier(4)
    house.work(ready=False)

    def send(_: int) -> Any:
        person = Person(flask.test_client(), key)
        together.wait(10)
        return made(imagine(person) if way == "imagine" else person.send(picture()))

    def all_wait() -> bool:
        return sum(map(len, flask.extensions["darkroom"].waits._waiters.values())) == 4

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(send, number) for number in range(4)]
        eventually(all_wait, within=10)
        house.painter.may_paint.set()
        images = [answer.result(20) for answer in answers]

    assert len({image["id"] for image in images}) == 1
    assert len(house.jobs()) == house.painter.painted == 1
    assert written(house.database, house.storage)["orphans"] == 0


# With an Idempotency-Key


def test_an_idempotency_key_gives_the_same_image_for_a_day_and_takes_no_other_body(house: House) -> None:
    person = house.person(house.open())
    house.work()
    headers = {"Idempotency-Key": "order-1"}

    image = made(imagine(person, headers=headers))
    again = made(imagine(person, headers=headers))
    other = problem(imagine(person, prompt="a dog", headers=headers), 422)

    assert again == image
    assert "Idempotency-Key" in other["message"]
    left = rows.query(house.database, "SELECT expires_at - now() AS left FROM idempotency_keys")[0].left
    assert left > timedelta(hours=23)
    assert made(imagine(person))["id"] != image["id"]
    assert len(house.jobs()) == 2


def test_two_idempotency_keys_make_two_images_of_one_body(house: House) -> None:
    person = house.person(house.open())
    house.work()

    images = [made(imagine(person, headers={"Idempotency-Key": key})) for key in ("a", "b")]

    assert images[0]["id"] != images[1]["id"]


def test_a_header_cannot_spell_a_key_of_ours(house: House) -> None:
    person = house.person(house.open())
    house.work()
    made(imagine(person))
    [ours] = rows.query(house.database, "SELECT key FROM idempotency_keys")

    told = problem(imagine(person, headers={"Idempotency-Key": ours.key}), 422)

    assert told["errors"][0].startswith("Idempotency-Key: ")


# Come to nothing


def test_a_deleted_image_is_made_anew_when_asked_for_again(house: House) -> None:
    person = house.person(house.open())
    house.work()
    image = made(imagine(person))
    person.ask("DELETE", f"{IMAGES}/{image['id']}")

    another = made(imagine(person))

    assert another["id"] != image["id"]
    assert person.show(another).status_code == 200


def test_under_an_idempotency_key_a_deleted_image_stays_deleted(house: House) -> None:
    person = house.person(house.open())
    house.work()
    headers = {"Idempotency-Key": "order-1"}
    image = made(imagine(person, headers=headers))
    person.ask("DELETE", f"{IMAGES}/{image['id']}")

    told = problem(imagine(person, headers=headers), 410)

    assert "was deleted" in told["message"]
    assert len(house.jobs()) == 1


def test_what_a_provider_refuses_is_422_with_its_reason(house: House) -> None:
    person = house.person(house.open())
    house.painter.fails_with = lambda: ProviderRefused("Cats are not drawn here.")
    house.work()

    answers = [imagine(person) for _ in range(2)]

    assert [problem(answer, 422)["message"] for answer in answers] == ["Cats are not drawn here."] * 2
    assert len(house.jobs()) == 1


def test_a_failure_of_ours_is_500_with_its_reason_and_is_tried_anew_when_asked_again(
    house: House,
) -> None:
    person = house.person(house.open())
    house.painter.fails_with = lambda: ProviderDown("The painter is ill.")
    house.work()

    told = problem(imagine(person), 500)
    house.painter.fails_with = None
    image = made(imagine(person))

    assert told["message"] == "The painter is ill."
    assert [job.status for job in house.jobs()] == ["failed", "completed"]
    assert made(imagine(person)) == image


def test_a_cancelled_job_is_409_and_stays_cancelled(house: House) -> None:
    flask = house.open()
    person = house.person(flask)
    services = flask.extensions["darkroom"]

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(imagine, Person(flask.test_client(), person.key))
        [job] = eventually(house.jobs, within=10)
        services.intake.cancel(job.id, account_id=job.account_id)
        answer = waiting.result(20)

    assert "was cancelled" in problem(answer, 409)["message"]
    assert problem(imagine(person), 409)
    assert len(house.jobs()) == 1


def test_while_the_store_is_away_nothing_is_accepted(house: House) -> None:
    person = house.person(house.open(s3_endpoint="http://127.0.0.1:1"))

    answer = person.send(picture())

    assert problem(answer, 503)["message"] == (
        "The object store does not answer; the same request will work later."
    )
    assert answer.headers["Retry-After"] == "5"
    assert written(house.database, house.storage) == NOTHING
