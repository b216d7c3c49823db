"""One pool, as the door and the owner of a job see it: who draws it, why, and that nobody can."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy.engine import Connection
from uuid_utils.compat import uuid7

from app import health, web
from app.api.events import Watch
from app.db import Database, bell, together
from app.db.door import NewJob
from app.domain import catalog
from app.domain.spec import Operation
from app.errors import DatabaseDown, InvalidFields
from app.intake import Intake
from app.settings import Settings
from app.storage import Storage
from app.wish import Wish
from tests import rows
from tests.conftest import Account
from tests.factories import NOTHING, written
from tests.submitter import JOBS, Submitter, problems, row_id, shown
from tests.targets import ANNEX, GPU, SHOP, Basin, break_, dismiss, mend, staff, with_targets

NEVER = timedelta(0)


class Counted(Database):
    """The database, whose connections are counted as they are asked for."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.asked: Counter[str] = Counter()
        self.is_away = False

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        self.asked["autocommit"] += 1
        if self.is_away:
            raise DatabaseDown
        with self.database.autocommit() as tx:
            yield tx

    @contextmanager
    def raw(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        self.asked["raw"] += 1
        with self.database.raw() as connection:
            yield connection


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_targets(settings, tmp_path)


@pytest.fixture
def counted(database: Database) -> Counted:
    return Counted(database)


@pytest.fixture
def door(settings: Settings, counted: Counted, storage: Storage) -> Callable[..., Intake]:
    """Makes the door of a process that has just looked who is there."""

    def make(chance: Callable[[], float] = lambda: 0.0, **changes: Any) -> Intake:
        mine = settings.model_copy(update=changes)
        made = Intake(
            mine,
            database=counted,
            storage=storage,
            catalog=catalog.load(mine.models_file),
            doorbell=bell.Doorbell(counted),
            chance=chance,
        )
        made.forecast.scene()
        return made

    return make


@pytest.fixture
def owner(client: FlaskClient, account: Account) -> Submitter:
    return Submitter(client, account)


def look_again(flask: Flask) -> None:
    """Have the application look at the tables with the next request, however new its numbers are."""
    flask.extensions["darkroom"].intake.forecast._until = 0.0


def submitted(intake: Intake, account: Account, **wish: Any) -> rows.Look:
    """Submit a drawing, and give its row with its first event's detail."""
    asked: dict[str, Any] = {
        "operation": Operation.TEXT_TO_IMAGE,
        "prompt": "a hill",
        "model": "hill",
        **wish,
    }
    accepted = intake.submit(Wish(**asked), account_id=account.id, dialect="jobs")
    return rows.query(
        intake._database,
        "SELECT j.*, e.detail FROM jobs j JOIN job_events e ON e.job_id = j.id WHERE j.id = %(id)s",
        id=accepted.job_id,
    )[0]


def test_the_first_target_is_recorded_with_its_batch_key_and_needs_no_reason(
    door: Callable[..., Intake], database: Database, account: Account
) -> None:
    staff(database, GPU)

    job = submitted(door(), account)

    assert (job.provider, job.target_model, job.queue) == ("diffusers", "hill", GPU)
    assert job.batch_key is not None
    assert job.detail is None


def test_the_next_target_is_recorded_with_the_reason(
    door: Callable[..., Intake], database: Database, account: Account
) -> None:
    staff(database, ANNEX)
    break_(database, "shop")

    job = submitted(door(), account, seed=7)

    assert (job.provider, job.queue, job.batch_key, job.spec["seed"]) == ("annex", ANNEX, None, 7)
    assert job.detail["to"] == "annex/hills-2"
    assert job.detail["why"] == (
        "not diffusers/hill: no live worker takes jobs from gpu.hill; "
        "not shop/hills-1: upstream shop failed too often and is left alone for a while"
    )


def test_jobs_come_back_to_the_first_target_when_its_breaker_has_closed(
    door: Callable[..., Intake], database: Database, account: Account
) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    break_(database, "shop")
    assert submitted(door(), account, model="bought").queue == ANNEX

    mend(database, "shop")
    assert submitted(door(), account, model="bought").queue == SHOP


def test_an_upstream_without_a_key_gets_no_jobs(
    door: Callable[..., Intake], database: Database, account: Account
) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)

    intake = door(upstream_keys=SecretStr("annex=sk-2"))

    assert submitted(intake, account, model="bought").queue == ANNEX


def test_by_weight_the_jobs_are_shared(
    door: Callable[..., Intake], database: Database, account: Account
) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    chances = iter(nth / 20 for nth in range(20))
    intake = door(chance=lambda: next(chances))

    jobs = [submitted(intake, account, model="dice") for _ in range(20)]

    assert Counter(job.queue for job in jobs) == {SHOP: 15, ANNEX: 5}
    assert all(job.detail is None for job in jobs)


def test_a_queue_with_too_long_a_wait_is_passed_over(
    door: Callable[..., Intake], settings: Settings, database: Database, account: Account
) -> None:
    staff(database, GPU)
    staff(database, SHOP)
    basin = Basin(settings, database, account.id)
    for _ in range(7):
        basin.job()

    job = submitted(door(), account)

    assert job.queue == SHOP
    assert job.detail["why"] == "not diffusers/hill: the expected wait on gpu.hill is 35 s, more than 30 s"


def test_of_the_targets_only_one_that_can_do_it_is_taken(
    door: Callable[..., Intake], database: Database, account: Account
) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)

    job = submitted(door(), account, width=256, height=256)

    assert job.queue == ANNEX
    assert "its sides are 1 to 128 pixels, not 256" in job.detail["why"]


def test_what_no_target_can_do_names_the_field_and_the_nearest_problem(
    door: Callable[..., Intake], account: Account
) -> None:
    with pytest.raises(InvalidFields) as caught:
        submitted(door(), account, model="bought", width=264, fields={"width": "breadth"})

    (problem,) = caught.value.problems
    assert problem.field == "breadth"
    assert "not 264" in problem.message


def test_the_own_dialect_refuses_what_no_target_can_do(owner: Submitter) -> None:
    assert set(problems(owner.submit(prompt="x", model="bought", height=512))) == {"height"}


@pytest.mark.parametrize("model", ["lone", "hill"])
def test_the_choice_costs_no_statement(
    door: Callable[..., Intake], counted: Counted, database: Database, account: Account, model: str
) -> None:
    staff(database, ANNEX)
    intake = door()
    intake._quotas.take(account.id)
    wish = Wish(operation=Operation.TEXT_TO_IMAGE, prompt="a hill", model=model)
    counted.asked.clear()

    intake.submit(wish, account_id=account.id, dialect="jobs")

    assert counted.asked == {"raw": 1}


def test_routed_jobs_are_written_together_each_with_its_own_reason(
    database: Database, account: Account
) -> None:
    one = NewJob(
        id=uuid7(),
        account_id=account.id,
        dialect="jobs",
        operation="text_to_image",
        model="hill",
        provider="shop",
        queue=SHOP,
        spec=rows.make_spec().as_stored(),
        output_prefix=uuid4(),
        max_attempts=5,
    )
    jobs = [
        replace(one, id=uuid7(), output_prefix=uuid4(), routed=routed)
        for routed in ('{"why": "a \\"reason\\""}', None, '{"why": "other"}')
    ]

    with database.raw() as connection:
        assert together._insert(connection, jobs).keys() == {job.id for job in jobs}

    found = rows.query(database, "SELECT job_id, detail->>'why' AS why FROM job_events")
    assert {row.job_id: row.why for row in found} == {
        jobs[0].id: 'a "reason"',
        jobs[1].id: None,
        jobs[2].id: "other",
    }


def test_a_repetition_goes_where_its_model_is_drawn_today(
    flask: Flask, owner: Submitter, database: Database
) -> None:
    staff(database, GPU)
    first = owner.made(prompt="x", model="hill", seed=9)
    owner.ask("DELETE", f"{JOBS}/{first['id']}")
    dismiss(database, GPU)
    staff(database, SHOP)
    look_again(flask)

    again = shown(owner.ask("POST", f"{JOBS}/{first['id']}/retry"), 202)

    assert (first["provider"], again["provider"]) == ("diffusers", "shop")
    assert again["spec"] == first["spec"]


# Nobody is there


def test_a_job_says_at_once_that_nobody_can_draw_it_and_when_somebody_can(
    flask: Flask, owner: Submitter, database: Database
) -> None:
    job = owner.made(prompt="x", model="lone")
    assert job["unservable"] == "no live worker takes jobs from gpu.hill"
    assert job["estimated_completion"] is None
    frames = owner.ask("GET", f"{JOBS}/{job['id']}/events", buffered=False)
    first = b"".join(next(iter(frames.iter_encoded())) for _ in range(2))
    frames.close()
    assert b'"unservable":"no live worker takes jobs from gpu.hill"' in first

    staff(database, GPU)
    look_again(flask)
    job = owner.job(job["id"])
    assert job["unservable"] is None
    assert job["estimated_completion"] is not None


def test_a_job_that_is_about_to_be_moved_is_not_called_unservable(
    owner: Submitter, settings: Settings, database: Database, account: Account
) -> None:
    staff(database, SHOP)
    basin = Basin(settings, database, account.id)
    movable, stuck = basin.job(), basin.job(width=512)

    assert owner.job(f"job_{movable.hex}")["unservable"] is None
    assert owner.job(f"job_{stuck.hex}")["unservable"] == "no live worker takes jobs from gpu.hill"


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "own": ("/v1/jobs", {"prompt": "x", "model": "lone"}, "error.code"),
    "realm": ("/v1/images/generate", {"prompt": "x", "modelId": "lone"}, "error.code"),
    "openai": ("/v1/images/generations", {"prompt": "x", "model": "lone"}, "error.code"),
    "modelslab": ("/api/v6/realtime/text2img", {"prompt": "x", "width": 64, "height": 64}, "status"),
    "imgprocessing": ("/v1/images/imagine", {"prompt": "x", "name": "x"}, "error"),
}


@pytest.mark.parametrize("dialect", REFUSALS)
def test_with_no_patience_it_is_refused_in_the_dialects_own_words_and_nothing_is_written(
    settings: Settings, database: Database, storage: Storage, account: Account, dialect: str
) -> None:
    flask = web.create_app(settings.model_copy(update={"unservable_after": NEVER}))
    path, body, member = REFUSALS[dialect]
    key = {"key": account.key} if dialect == "modelslab" else {}
    try:
        flask.extensions["darkroom"].intake.forecast.scene()
        answer = flask.test_client().post(
            path, json={**body, **key}, headers={**account.headers, "Authorization": f"Bearer {account.key}"}
        )
    finally:
        web.close(flask)

    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    found: Any = answer.json
    for name in member.split("."):
        found = found[name]
    assert found
    assert written(database, storage) == NOTHING


def test_after_an_outage_of_the_database_nobody_is_refused_for_a_lease(
    door: Callable[..., Intake], counted: Counted, account: Account
) -> None:
    intake = door(unservable_after=NEVER, lease=timedelta(hours=1))
    counted.is_away, intake.forecast._until = True, 0.0
    intake.forecast.scene()
    counted.is_away = False

    assert submitted(intake, account, model="lone").queue == GPU
    assert intake.forecast.unservable_reason(intake.catalog.find("lone")) is None


# What its owner and the operator see


def test_a_timeline_says_where_a_job_went_and_why(
    owner: Submitter, settings: Settings, database: Database
) -> None:
    staff(database, SHOP)
    job = owner.made(prompt="x", model="hill")
    basin = Basin(settings, database, owner.account.id)
    dismiss(database, SHOP)
    staff(database, ANNEX)
    assert basin.reroute() == (1, 0)

    events = shown(owner.ask("GET", f"{JOBS}/{job['id']}/timeline"))["events"]

    assert [(event["reason"], event["target"]) for event in events] == [
        ("submitted", "shop/hills-1"),
        ("rerouted", "annex/hills-2"),
    ]
    assert events[1]["why"] == "no live worker takes jobs from provider.shop"
    assert owner.job(job["id"])["provider"] == "annex"


def test_a_stream_tells_of_a_move_though_status_and_attempt_stay(
    flask: Flask, owner: Submitter, settings: Settings, database: Database
) -> None:
    staff(database, SHOP)
    services = flask.extensions["darkroom"]
    job = services.intake.find(row_id(owner.made(prompt="x")["id"]), account_id=owner.account.id)
    watch = Watch(services, job, after=0, base_url="http://localhost")
    frames = watch.frames()
    assert b"submitted" in [next(frames) for _ in range(2)][1]

    dismiss(database, SHOP)
    staff(database, ANNEX)
    assert Basin(settings, database, owner.account.id).reroute() == (1, 0)
    watch._next_position = 0.0
    told = next(frames)

    assert told.startswith(b"event: queued\nid: ")
    assert b'"reason":"rerouted"' in told
    assert b'"target":"annex/hills-2"' in told


def test_a_completed_job_shows_its_warnings_and_its_cost(owner: Submitter, database: Database) -> None:
    job = owner.made(prompt="x", model="hill")
    assert (job["warnings"], job["cost"]) == ([], None)

    rows.execute(
        database,
        "UPDATE jobs SET warnings = '[\"seed has no effect\"]', cost = 0.04 WHERE id = %(id)s",
        id=row_id(job["id"]),
    )

    job = owner.job(job["id"])
    assert (job["warnings"], job["cost"]) == (["seed has no effect"], 0.04)


def test_doctor_has_a_line_for_each_upstream_and_for_each_model_that_nobody_can_draw(
    settings: Settings, database: Database
) -> None:
    staff(database, ANNEX)
    break_(database, "shop")
    mine = settings.model_copy(update={"upstream_keys": SecretStr("shop=sk-1")})

    found = {one.name: one for one in health._pool(mine, catalog.load(mine.models_file), database)}

    assert found["upstream shop"].says.startswith("breaker open, nothing is sent for ")
    assert found["upstream shop"].says.endswith("last failure: HTTP 500 from 10.0.0.7")
    assert found["upstream annex"].says == "no key, breaker closed"
    assert "DARKROOM_UPSTREAM_KEYS" in found["upstream annex"].remedy
    assert not any(one.well for one in found.values())
    assert "gpu.hill" in found["model lone"].says

    staff(database, GPU)
    found = {one.name: one for one in health._pool(settings, catalog.load(mine.models_file), database)}
    assert found.keys() == {"upstream shop", "upstream annex"}
    assert found["upstream annex"].well
