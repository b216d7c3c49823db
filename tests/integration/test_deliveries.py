"""Webhooks delivered to a real receiver: once when all is well, again and again when it is not."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook
from uuid_utils.compat import uuid7

from app import webhooks
from app.db import Database, jobs, outbox, outputs
from app.db import webhooks as endpoint_rows
from app.db.webhooks import NewEndpoint
from app.domain.job import Reason, Status
from app.domain.webhook import SCHEDULE, DeliveryStatus, Event, Form, Scope
from app.settings import Settings
from app.vault import Vault
from tests import office as offices
from tests import rows
from tests.conftest import Account
from tests.office import Office
from tests.servers.receiver import Received, Receiver, Reply, receiving
from tests.servers.strangers import Names
from workers.deliverer import Deliverer

DELIVERED, PENDING, FAILED = DeliveryStatus.DELIVERED, DeliveryStatus.PENDING, DeliveryStatus.FAILED
A_DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def office(settings: Settings, database: Database, account: Account) -> Office:
    return offices.opened(settings, database, account)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def answering(*statuses: int) -> Any:
    """Answers these statuses in turn, the last one for ever."""
    left = list(statuses)

    def answer(_: Received) -> Reply:
        return Reply(left.pop(0) if len(left) > 1 else left[0])

    return answer


def verified(one: Received, secret: str | None) -> Any:
    assert secret is not None
    return Webhook(secret).verify(one.body, one.headers)


# When all is well


def test_a_job_that_ends_is_told_once_signed_and_with_its_image(office: Office, receiver: Receiver) -> None:
    made = office.register(receiver.url())
    (job_id,) = office.complete(base_url="https://img.example/")

    assert office.deliver_due() == [DELIVERED]
    assert office.deliver_due() == []

    (one,) = receiver.received
    body = verified(one, made.secret)
    assert body["type"] == "job.completed"
    assert body["data"]["id"] == f"job_{job_id.hex}"
    job = rows.job(office.database, job_id)
    url = f"https://img.example/outputs/{job.output_prefix.hex}-0.png"
    assert [output["url"] for output in body["data"]["outputs"]] == [url]
    delivery = office.delivery()
    assert one.id == f"msg_{delivery.id.hex}"
    assert one.headers["content-type"] == "application/json"
    assert one.headers["user-agent"].startswith("Darkroom/")
    assert (delivery.status, delivery.attempts, delivery.last_status) == ("delivered", 1, 200)
    assert delivery.body.encode() == one.body
    assert delivery.finished_at is not None
    (attempt,) = office.attempts()
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 200, None)
    assert attempt.seconds < 5


def test_each_endpoint_hears_in_its_own_words(office: Office, receiver: Receiver) -> None:
    for form in Form:
        office.register(receiver.url(f"/{form}"), form=form)
    office.complete(number=1, echo=json.dumps({"meta": {"seed": 1}, "track_id": 7}))

    assert office.deliver_due() == [DELIVERED] * 3

    bodies = {path: json.loads(receiver.at(path)[0].body) for path in ("/jobs", "/modelslab", "/realm")}
    assert bodies["/jobs"]["type"] == "job.completed"
    assert (bodies["/modelslab"]["status"], bodies["/modelslab"]["track_id"]) == ("success", 7)
    assert bodies["/realm"]["eventType"] == "job.completed"
    assert "x-webhook-signature" in receiver.at("/realm")[0].headers


def test_the_public_url_of_the_settings_wins_over_the_host_that_was_asked(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete(base_url="https://asked.example")
    public = office.settings.model_copy(update={"public_url": "https://set.example/"})
    guard, bell = office.deliverer._guard, office.deliverer._doorbell
    deliverer = Deliverer(public, database=office.database, guard=guard, vault=office.vault, doorbell=bell)

    (delivery_id,) = office.release()
    deliverer.deliver(delivery_id)

    (output,) = json.loads(receiver.received[0].body)["data"]["outputs"]
    assert output["url"].startswith("https://set.example/outputs/")


def test_only_the_requests_own_endpoint_and_the_accounts_hear_of_a_job(
    office: Office, receiver: Receiver, stranger: Account
) -> None:
    office.register(receiver.url("/account"))
    office.register(receiver.url("/stranger"), account=stranger)
    mine, other = (
        webhooks.endpoint_of_request(
            office.database,
            office.vault,
            account_id=office.account.id,
            url=receiver.url(path),
            form=Form.MODELSLAB,
        )
        for path in ("/mine", "/other")
    )
    office.complete(webhook_endpoint_id=mine)

    office.deliver_due()

    assert {one.path for one in receiver.received} == {"/account", "/mine"}
    assert mine != other


def test_an_endpoint_hears_only_of_the_events_it_asked_for(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url("/begins"), events=[Event.PROCESSING])
    office.register(receiver.url("/fails"), events=[Event.FAILED])
    office.complete()

    office.deliver_due()

    (one,) = receiver.received
    assert (one.path, json.loads(one.body)["data"]["status"]) == ("/begins", "processing")


def test_an_unowed_or_delivered_delivery_is_not_there_for_the_taking(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete()
    (delivery_id,) = office.release()
    office.deliverer.deliver(delivery_id)

    assert office.deliverer.deliver(delivery_id) is None
    assert office.deliverer.deliver(uuid7()) is None
    assert len(receiver.received) == 1


def test_a_wake_up_for_what_is_not_released_posts_nothing(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()

    assert office.deliverer.deliver(office.delivery().id) is None
    assert receiver.received == []


# Every path to an end is told


def _claimed(office: Office, **columns: Any) -> Any:
    job_id = rows.insert_job(office.database, office.account.id, **columns)
    with office.database.autocommit() as tx:
        claim = jobs.claim(tx, job_id, worker="w1", lease=SECOND, deadline=timedelta(minutes=1))
    assert claim is not None
    return job_id


def _end(office: Office, job_id: Any, status: Status, reason: Reason) -> None:
    with office.database.autocommit() as tx:
        assert jobs.end_attempt(
            tx,
            job_id,
            attempt=1,
            worker="w1",
            to_status=status,
            reason=reason,
            charge=True,
            error_code="provider_failed",
            error_message="no",
        )


def _completed(office: Office) -> None:
    office.complete()


def _failed(office: Office) -> None:
    _end(office, _claimed(office), Status.FAILED, Reason.FAILED)


def _cancelled_while_it_ran(office: Office) -> None:
    _end(office, _claimed(office), Status.CANCELLED, Reason.CANCELLED)


def _cancelled_before_it_ran(office: Office) -> None:
    job_id = rows.insert_job(office.database, office.account.id)
    with office.database.autocommit() as tx:
        assert jobs.cancel(tx, job_id, account_id=office.account.id) is Status.CANCELLED


def _retried_although_cancelled(office: Office) -> None:
    job_id = _claimed(office)
    with office.database.autocommit() as tx:
        jobs.cancel(tx, job_id, account_id=office.account.id)
    _end(office, job_id, Status.QUEUED, Reason.RETRY)


def _given_up_by_rescue(office: Office) -> None:
    _claimed(office, crashes=9)
    rows.execute(office.database, "UPDATE jobs SET lease_until = now() - interval '1 s'")
    with office.database.autocommit() as tx:
        assert jobs.rescue(tx).failed == 1


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (_completed, "job.completed"),
        (_failed, "job.failed"),
        (_given_up_by_rescue, "job.failed"),
        (_cancelled_while_it_ran, "job.cancelled"),
        (_cancelled_before_it_ran, "job.cancelled"),
        (_retried_although_cancelled, "job.cancelled"),
    ],
)
def test_every_end_of_a_job_is_told_in_the_transaction_that_ends_it(
    end: Any, event: str, office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())

    end(office)

    assert office.delivery().event == event
    assert office.deliver_due() == [DELIVERED]
    assert json.loads(receiver.received[0].body)["type"] == event


def test_a_retry_and_a_drain_are_told_to_nobody(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    _end(office, _claimed(office), Status.QUEUED, Reason.RETRY)

    assert office.deliveries() == []


# When it is not


def test_after_a_failure_the_same_bytes_come_again_under_the_same_id(
    office: Office, receiver: Receiver
) -> None:
    made = office.register(receiver.url())
    office.complete()
    receiver.answer = answering(500, 404, 200)

    assert office.deliver_due() == [PENDING]
    assert office.deliver_due() == []  # not at once
    office.later(SCHEDULE[1] * 1.2)
    assert office.deliver_due() == [PENDING]
    office.later(SCHEDULE[2])
    assert office.deliver_due() == [DELIVERED]

    assert len({one.id for one in receiver.received}) == 1
    assert len({one.body for one in receiver.received}) == 1
    for one in receiver.received:
        verified(one, made.secret)
    told = [(a.number, a.status_code, a.error) for a in office.attempts()]
    assert told == [
        (1, 500, "It answered HTTP 500."),
        (2, 404, "It answered HTTP 404."),
        (3, 200, None),
    ]


def test_what_changed_since_the_first_try_does_not_change_the_body(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete()
    receiver.answer = answering(500, 200)
    office.deliver_due()
    (output,) = rows.query(office.database, "SELECT id FROM outputs")
    with office.database.autocommit() as tx:
        assert outputs.persist(tx, output.id, account_id=office.account.id)

    office.later(SCHEDULE[2])
    office.deliver_due()

    first, second = receiver.received
    assert first.body == second.body


def test_each_try_is_signed_for_its_own_time(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    receiver.answer = answering(500, 200)
    before = int(datetime.now(UTC).timestamp())
    office.deliver_due()
    office.later(A_DAY)
    office.deliver_due()

    stamps = [int(one.headers["webhook-timestamp"]) for one in receiver.received]
    assert all(before <= stamp <= datetime.now(UTC).timestamp() for stamp in stamps)
    assert receiver.received[0].headers["webhook-signature"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_nobody_goes_where_it_leads(
    status: int, office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete()
    receiver.answer = lambda _: Reply(status, {"Location": receiver.url("/elsewhere")})

    assert office.deliver_due() == [PENDING]

    assert [one.path for one in receiver.received] == ["/hook"]
    assert "redirects are not followed" in office.delivery().last_error


def test_the_beginning_of_what_it_answered_is_kept(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    receiver.answer = lambda _: Reply(500, body=b"no such \0 order \xff " + b"x" * 5_000)

    office.deliver_due()

    (attempt,) = office.attempts()
    assert attempt.response.startswith("no such \ufffd order \ufffd xxx")
    assert len(attempt.response.encode()) <= 2_048


def test_a_delivery_nobody_takes_is_given_up_after_the_last_try_of_the_schedule(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete()
    receiver.answer = answering(500)

    found: list[DeliveryStatus | None] = []
    for _ in SCHEDULE:
        found += office.deliver_due()
        office.later(A_DAY)

    assert found == [PENDING] * (len(SCHEDULE) - 1) + [FAILED]
    assert len(receiver.received) == len(SCHEDULE)
    delivery = office.delivery()
    assert (delivery.status, delivery.last_status) == ("failed", 500)
    assert delivery.finished_at is not None


def test_a_receiver_that_is_not_there_is_a_failure_with_a_reason(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    receiver.down()

    assert office.deliver_due() == [PENDING]

    (attempt,) = office.attempts()
    assert attempt.status_code is None
    assert attempt.error == "The URL's host accepts no connection."


def test_410_disables_the_endpoint_and_fails_what_waits_for_it(office: Office, receiver: Receiver) -> None:
    made = office.register(receiver.url())
    office.complete(3)
    receiver.answer = answering(410)
    first, *_rest = office.release()

    assert office.deliverer.deliver(first) is FAILED
    office.complete()

    told = [(d.status, d.last_error) for d in office.deliveries() if d.id != first]
    assert told == [("failed", "the endpoint is disabled: it answered 410 Gone")] * 3
    assert office.endpoint(made).disabled_reason == "it answered 410 Gone"
    assert office.deliver_due() == []
    assert len(receiver.received) == 1


def test_a_try_under_way_when_its_endpoint_is_deleted_is_the_last(office: Office, receiver: Receiver) -> None:
    made = office.register(receiver.url())
    office.complete()

    def delete_it(_: Received) -> Reply:
        webhooks.delete(office.database, made.endpoint.id, account_id=office.account.id)
        return Reply(500)

    receiver.answer = delete_it

    assert office.deliver_due() == [FAILED]
    assert office.delivery().last_error == "It answered HTTP 500."


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_pauses_the_whole_endpoint_and_no_other(
    status: int, form: str, office: Office, receiver: Receiver
) -> None:
    made = office.register(receiver.url("/busy"))
    office.register(receiver.url("/free"))
    office.complete()
    in_two_minutes = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
    wait = "120" if form == "seconds" else in_two_minutes
    receiver.answer = lambda one: Reply(status, {"Retry-After": wait}) if one.path == "/busy" else Reply()

    assert sorted(filter(None, office.deliver_due())) == [DELIVERED, PENDING]
    office.complete()
    assert office.deliver_due() == [DELIVERED]

    assert len(receiver.at("/busy")) == 1
    assert len(receiver.at("/free")) == 2
    assert timedelta(seconds=110) < office.endpoint(made).opened_for <= timedelta(seconds=120)
    (tried,) = rows.query(
        office.database,
        "SELECT run_at - now() AS left FROM deliveries WHERE attempts = 1 AND status = 'pending'",
    )
    assert tried.left > timedelta(seconds=110)
    receiver.answer = answering(200)
    office.later(timedelta(seconds=135))
    assert set(office.deliver_due() + office.deliver_due()) == {DELIVERED}
    assert len(receiver.at("/busy")) == 3


def test_what_was_released_before_the_pause_waits_too(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete(2)
    receiver.answer = lambda _: Reply(429, {"Retry-After": "60"})

    first, second = office.release()
    assert office.deliverer.deliver(first) is PENDING
    assert office.deliverer.deliver(second) is None

    assert len(receiver.received) == 1
    assert all(d.dispatched_at is None and d.status == "pending" for d in office.deliveries())
    assert sorted(d.attempts for d in office.deliveries()) == [0, 1]


# Addresses


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/meta-data", "http://10.0.0.7/hook"])
def test_an_address_of_our_own_network_is_refused_at_each_delivery(url: str, office: Office) -> None:
    """However it came into the table."""
    new = NewEndpoint(
        id=uuid7(),
        account_id=office.account.id,
        url=url,
        form=Form.JOBS,
        scope=Scope.ACCOUNT,
        events=[Event.COMPLETED],
        secret=office.vault.encrypt(webhooks.new_secret()),
    )
    with office.database.transaction() as tx:
        endpoint_rows.insert_endpoint(tx, new)
    office.complete()

    assert office.deliver_due() == [PENDING]

    (attempt,) = office.attempts()
    assert attempt.status_code is None
    assert "no address that may be used" in attempt.error


def test_a_name_that_leads_into_our_network_since_it_was_registered_is_refused_then(
    settings: Settings, database: Database, account: Account
) -> None:
    names = Names(["93.184.215.14"], ["169.254.169.254"])
    office = offices.opened(settings, database, account, resolver=names)
    url = office.deliverer._guard.check("http://hooks.example/darkroom").url
    office.register(url)
    office.complete()

    assert office.deliver_due() == [PENDING]

    (attempt,) = office.attempts()
    assert "no address that may be used" in attempt.error
    assert names.asked == ["hooks.example"] * 2


# Secrets


def test_while_secrets_rotate_a_receiver_may_know_either_and_then_only_the_new(
    office: Office, receiver: Receiver
) -> None:
    made = office.register(receiver.url())
    rotated = webhooks.rotate(
        office.database, office.vault, made.endpoint.id, account_id=office.account.id, keep=A_DAY
    )
    office.complete()
    office.deliver_due()
    office.later(A_DAY)
    office.complete()
    office.deliver_due()

    both, one = (received.headers["webhook-signature"].split(" ") for received in receiver.received)
    assert (len(both), len(one)) == (2, 1)
    verified(receiver.received[0], made.secret)
    verified(receiver.received[0], rotated.secret)
    verified(receiver.received[1], rotated.secret)
    assert made.secret != rotated.secret


def test_a_secret_that_cannot_be_read_is_a_failure_that_says_so(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    other = office.settings.model_copy(update={"secret_key": SecretStr("y" * 32), "encryption_keys": None})
    office.deliverer._vault = Vault(other)

    assert office.deliver_due() == [PENDING]

    assert "rotate it, or tell the operator" in office.delivery().last_error
    assert receiver.received == []


def test_no_secret_lies_in_the_table_as_it_is(office: Office, receiver: Receiver) -> None:
    made = office.register(receiver.url())
    assert made.secret is not None

    (row,) = rows.query(office.database, "SELECT secret FROM webhook_endpoints")

    assert made.secret not in row.secret
    assert office.vault.decrypt(row.secret) == made.secret


# Workers that die, drain or come too late


def test_a_worker_that_dies_after_posting_leads_to_the_same_delivery_once_more(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete()
    rescued: list[int] = []

    def die(_: Received) -> Reply:
        """What relay does when the worker's lease has run out, while the worker only seems dead."""
        receiver.answer = answering(200)
        office.later(timedelta(minutes=5))
        with office.database.autocommit() as tx:
            rescued.append(outbox.rescue(tx))
        return Reply()

    receiver.answer = die
    assert office.deliver_due() == [None]  # the late worker's result counts for nothing
    assert office.deliver_due() == [DELIVERED]

    assert rescued == [1]
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    told = [(a.number, a.status_code, a.error is None) for a in office.attempts()]
    assert told == [(1, None, False), (2, 200, True)]


def test_rescue_leaves_alone_what_is_being_posted(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    found: list[int] = []

    def look(_: Received) -> Reply:
        with office.database.autocommit() as tx:
            found.append(outbox.rescue(tx))
        return Reply()

    receiver.answer = look

    assert office.deliver_due() == [DELIVERED]
    assert found == [0]


def test_a_delivery_whose_workers_all_die_is_given_up_in_the_end(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    for _ in SCHEDULE:
        rows.execute(
            office.database,
            "UPDATE deliveries SET attempts = attempts + 1, dispatched_at = now(), "
            "lease_until = now() - interval '1 s'",
        )
        with office.database.autocommit() as tx:
            assert outbox.rescue(tx) == 1

    assert office.delivery().status == "failed"
    assert "fell silent" in office.delivery().last_error


def test_a_draining_worker_posts_nothing_and_hands_the_wake_up_back(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete()
    (delivery_id,) = office.release()
    draining = threading.Event()
    draining.set()
    deliverer = Deliverer(
        office.settings,
        database=office.database,
        guard=office.deliverer._guard,
        vault=office.vault,
        doorbell=office.deliverer._doorbell,
        is_draining=draining.is_set,
    )

    assert deliverer.deliver(delivery_id) is None

    assert receiver.received == []
    assert office.delivery().dispatched_at is None
    assert office.deliver_due() == [DELIVERED]
