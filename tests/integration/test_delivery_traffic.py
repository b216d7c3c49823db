"""Many deliveries and several endpoints: breaker, concurrency, outages, replays, and who waits for whom."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from app import webhooks
from app.broker import WEBHOOKS
from app.db import Database, outbox
from app.db.queues import ALIVE_WITHIN
from app.domain.webhook import (
    FAILURES_TO_OPEN,
    GIVEN_UP_UNTRIED,
    MAX_IN_FLIGHT,
    DeliveryStatus,
    Event,
)
from app.errors import StillDelivering, UnknownDelivery, UnknownWebhook, WebhookDisabled
from app.settings import Settings
from tests import office as offices
from tests import rows
from tests.conftest import Account, make_account
from tests.office import Office, crew
from tests.servers.receiver import Received, Receiver, Reply, receiving
from tests.waiting import eventually

DELIVERED, PENDING, FAILED = DeliveryStatus.DELIVERED, DeliveryStatus.PENDING, DeliveryStatus.FAILED
MINUTE = timedelta(minutes=1)
A_DAY = timedelta(days=1)
BEFORE_IT_TIMES_OUT = offices.LOCAL["webhook_timeout"].total_seconds() - 1
"""Seconds after which a receiver that hangs has not yet given its slots back."""


@pytest.fixture
def office(settings: Settings, database: Database, account: Account) -> Office:
    return offices.opened(settings, database, account)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def failing(_: Received) -> Reply:
    return Reply(500)


def working(_: Received) -> Reply:
    return Reply()


def slow(_: Received) -> Reply:
    """Long enough that requests would pile up if they were let."""
    threading.Event().wait(0.01)
    return Reply()


def hanging_until(leave: threading.Event) -> Callable[[Received], Reply]:
    """Answers nothing until `leave` is set, but on /works at once."""

    def answer(one: Received) -> Reply:
        if one.path != "/works":
            leave.wait(30)
        return Reply()

    return answer


# Breaker


def open_breaker(office: Office, receiver: Receiver) -> Any:
    """Give an endpoint that failed five times in a row, with ten deliveries waiting."""
    made = office.register(receiver.url())
    office.complete(10)
    receiver.answer = failing
    for _ in range(FAILURES_TO_OPEN):
        (delivery_id, *others) = office.release()
        for other in others:  # only the first is tried, as if one worker were slow
            rows.execute(
                office.database, "UPDATE deliveries SET dispatched_at = NULL WHERE id = %(id)s", id=other
            )
        office.deliverer.deliver(delivery_id)
    assert office.endpoint(made).failures == FAILURES_TO_OPEN
    return made


def test_after_five_failures_in_a_row_an_endpoint_is_left_alone(office: Office, receiver: Receiver) -> None:
    made = open_breaker(office, receiver)

    assert office.release() == []
    assert timedelta(seconds=4) < office.endpoint(made).opened_for <= timedelta(seconds=5)
    assert not _any_due(office)


def test_then_one_probe_is_sent_and_after_a_failure_the_next_much_later(
    office: Office, receiver: Receiver
) -> None:
    made = open_breaker(office, receiver)
    office.later(timedelta(seconds=5))

    assert office.deliver_due() == [PENDING]

    assert office.endpoint(made).opened_for > timedelta(seconds=9)
    office.later(timedelta(seconds=10))
    assert len(office.release()) == 1
    assert office.release() == []  # while the probe is under way


def test_a_probe_that_succeeds_closes_the_breaker_and_all_that_waits_is_due_at_once(
    office: Office, receiver: Receiver
) -> None:
    made = open_breaker(office, receiver)
    receiver.answer = working
    office.later(timedelta(seconds=5))

    assert office.deliver_due() == [DELIVERED]

    assert (office.endpoint(made).failures, office.endpoint(made).opened_until) == (0, None)
    (waiting,) = rows.query(
        office.database,
        "SELECT count(*) AS number FROM deliveries WHERE status = 'pending' AND run_at <= now()",
    )
    assert waiting.number == 9
    assert [len(office.deliver_due()) for _ in range(3)] == [4, 4, 1]
    assert office.all_ended()


def test_a_delivery_its_receiver_can_never_take_is_not_brought_forward_by_others(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    (poison, *_rest) = office.complete(20)

    def answer(one: Received) -> Reply:
        return Reply(500 if f"job_{poison.hex}".encode() in one.body else 200)

    receiver.answer = answer

    for _ in range(10):
        office.deliver_due()

    (left,) = [d for d in office.deliveries() if d.status == "pending"]
    assert (left.job_id, left.attempts) == (poison, 1)
    assert len(receiver.received) == 20


def test_a_failing_endpoint_gets_one_at_a_time(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete(10)
    receiver.answer = failing

    assert len(office.deliver_due()) == MAX_IN_FLIGHT
    assert len(office.release()) == 1
    assert office.release() == []


# Who waits for whom


def test_an_endpoint_never_gets_more_than_four_at_a_time_whoever_releases(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete(60)
    receiver.answer = slow

    with crew(office, slots=16, relays=3):
        eventually(office.all_ended, within=30)

    assert receiver.most_at_once["/hook"] == MAX_IN_FLIGHT
    assert len(receiver.received) == len({one.id for one in receiver.received}) == 60


def test_a_receiver_that_hangs_does_not_slow_another(office: Office, receiver: Receiver) -> None:
    leave = threading.Event()
    office.register(receiver.url("/hangs"))
    office.register(receiver.url("/works"))
    receiver.answer = hanging_until(leave)
    office.complete(8)

    with crew(office):
        eventually(lambda: office.delivered(receiver.url("/works")) == 8, within=BEFORE_IT_TIMES_OUT)
        hung = receiver.most_at_once["/hangs"], office.delivered(receiver.url("/hangs"))
        leave.set()

    assert hung == (MAX_IN_FLIGHT, 0)


def test_an_account_with_many_hanging_receivers_leaves_room_for_others(
    office: Office, receiver: Receiver, stranger: Account
) -> None:
    leave = threading.Event()
    for number in range(10):
        office.register(receiver.url(f"/hangs-{number}"), account=stranger)
    office.register(receiver.url("/works"))
    receiver.answer = hanging_until(leave)
    office.complete(4, account=stranger)

    with crew(office):
        eventually(lambda: sum(receiver.most_at_once.values()) >= 6, within=10)
        office.complete(5)
        eventually(lambda: office.delivered(receiver.url("/works")) == 5, within=BEFORE_IT_TIMES_OUT)
        leave.set()


def test_dead_endpoints_together_get_at_most_half_of_the_slots(
    office: Office, settings: Settings, receiver: Receiver
) -> None:
    accounts = [make_account(office.database, settings, f"account-{number}") for number in range(8)]
    for number, account in enumerate(accounts):
        office.register(receiver.url(f"/{number}"), account=account)
        office.complete(3, account=account)
    rows.execute(office.database, "UPDATE webhook_endpoints SET failures = 1")
    office.register(receiver.url("/works"))
    office.complete(3)

    released = office.release()

    found = {d.id: d for d in office.deliveries()}
    mine = [each for each in released if found[each].account_id == office.account.id]
    assert len(mine) == 3
    assert len(released) - len(mine) == offices.SLOTS // 2


def test_a_healthy_endpoint_is_not_starved_by_its_accounts_dead_ones(
    office: Office, receiver: Receiver
) -> None:
    for number in range(12):
        office.register(receiver.url(f"/dead-{number}"))
    office.complete()
    rows.execute(office.database, "UPDATE webhook_endpoints SET failures = 1")
    made = office.register(receiver.url("/works"))
    office.complete()

    released = office.release()

    found = {d.id: d.endpoint_id for d in office.deliveries()}
    assert made.endpoint.id in {found[each] for each in released}


def test_endpoints_of_an_account_take_turns(office: Office, receiver: Receiver) -> None:
    for path in ("/a", "/b", "/c"):
        office.register(receiver.url(path))
        office.complete(3)

    released = office.release()

    found = {d.id: d.endpoint_id for d in office.deliveries()}
    assert sorted(Counter(found[each] for each in released).values()) == [2, 2, 2]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_with_few_slots_somebody_still_gets_one(
    slots: int, office: Office, receiver: Receiver, stranger: Account
) -> None:
    offices.announce(office.database, slots=slots)
    office.register(receiver.url("/a"))
    office.register(receiver.url("/b"), account=stranger)
    office.complete(5)
    office.complete(5, account=stranger)

    with crew(office, slots=slots):
        eventually(office.all_ended, within=20)

    assert len(receiver.received) == 10


def test_without_a_live_worker_the_backlog_stays_in_sql(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    rows.execute(office.database, "UPDATE workers SET seen_at = now() - interval '1 min'")

    assert office.release() == []


def test_two_relays_at_once_do_not_both_count(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete(8)

    with office.database.transaction() as tx:
        first = outbox.release(tx, queue=WEBHOOKS, batch=100)
        # The others go first now, and the second relay does not see yet what the first released.
        rows.execute(
            office.database,
            "UPDATE deliveries SET run_at = run_at - interval '1 min' WHERE NOT id = ANY (%(ids)s)",
            ids=first,
        )
        assert office.release() == []

    assert len(first) == MAX_IN_FLIGHT
    assert office.release() == []


# Outages


@pytest.mark.slow
def test_a_receiver_that_was_down_gets_everything_once_it_is_back(office: Office, receiver: Receiver) -> None:
    made = office.register(receiver.url())
    office.complete(25)
    receiver.down()

    with crew(office):
        eventually(lambda: office.endpoint(made).failures >= FAILURES_TO_OPEN, within=20)
        office.complete(25)
        receiver.up()
        eventually(office.all_ended, within=30)

    assert {d.status for d in office.deliveries()} == {"delivered"}
    ids = [one.id for one in receiver.received]
    assert sorted(ids) == sorted(f"msg_{d.id.hex}" for d in office.deliveries())
    assert max(d.attempts for d in office.deliveries()) <= FAILURES_TO_OPEN + 1


def test_what_is_due_for_days_without_a_try_is_given_up(office: Office, receiver: Receiver) -> None:
    made = open_breaker(office, receiver)
    office.later(GIVEN_UP_UNTRIED - MINUTE)
    with office.database.autocommit() as tx:
        assert outbox.give_up_hopeless(tx) == 0
    office.later(2 * MINUTE)
    with office.database.autocommit() as tx:
        assert outbox.give_up_hopeless(tx) > 0

    assert {d.status for d in office.deliveries() if d.run_at is not None} >= {"failed"}
    untried = [d.last_error for d in office.deliveries() if d.attempts == 0]
    assert untried
    assert all(error.startswith("Not tried for 3 days") for error in untried)
    assert office.endpoint(made).disabled_at is None


def test_what_was_owed_in_the_moment_its_endpoint_was_disabled_does_not_wait_for_ever(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete()
    rows.execute(
        office.database, "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'it was late'"
    )

    assert office.release() == []
    with office.database.autocommit() as tx:
        assert outbox.give_up_hopeless(tx) == 1

    assert office.delivery().last_error == "the endpoint is disabled: it was late"


# Replays


def test_a_replay_sends_the_same_bytes_under_the_same_id(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    office.deliver_due()

    webhooks.replay(office.database, office.delivery().id, account_id=office.account.id)
    assert office.deliver_due() == [DELIVERED]

    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert [a.number for a in office.attempts()] == [1, 2]


def test_a_replay_is_tried_by_the_whole_schedule_again(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    receiver.answer = failing
    while office.delivery().status == "pending":
        office.deliver_due()
        office.later(A_DAY)
    tries = office.delivery().attempts

    webhooks.replay(office.database, office.delivery().id, account_id=office.account.id)

    assert office.deliver_due() == [PENDING]
    assert office.delivery().attempts == tries + 1


def test_what_is_still_tried_and_what_is_a_strangers_cannot_be_replayed(
    office: Office, receiver: Receiver, stranger: Account
) -> None:
    made = office.register(receiver.url())
    office.complete()
    delivery_id = office.delivery().id

    with pytest.raises(StillDelivering):
        webhooks.replay(office.database, delivery_id, account_id=office.account.id)
    office.deliver_due()
    with pytest.raises(UnknownDelivery):
        webhooks.replay(office.database, delivery_id, account_id=stranger.id)
    with pytest.raises(UnknownWebhook):
        _replay_all(office, made, account=stranger)
    assert office.delivery().status == "delivered"


def test_the_deliveries_of_a_time_are_replayed_its_begin_included_and_its_end_not(
    office: Office, receiver: Receiver
) -> None:
    made = office.register(receiver.url())
    office.complete(4)
    office.deliver_due()
    first, second, third, fourth = office.deliveries()

    replayed = webhooks.replay_between(
        office.database,
        made.endpoint.id,
        account_id=office.account.id,
        since=second.created_at,
        until=fourth.created_at,
        status=None,
    )

    assert replayed == 2
    assert {d.id for d in office.deliveries() if d.status == "pending"} == {second.id, third.id}
    assert first.status == "delivered"


def test_a_replay_may_be_of_those_that_failed_only(office: Office, receiver: Receiver) -> None:
    made = office.register(receiver.url())
    office.complete(2)
    (one, other) = office.release()
    office.deliverer.deliver(one)
    receiver.answer = lambda _: Reply(410)
    office.deliverer.deliver(other)
    office.complete(3)

    with pytest.raises(WebhookDisabled):
        _replay_all(office, made)
    webhooks.enable(office.database, made.endpoint.id, account_id=office.account.id)
    receiver.answer = working
    assert _replay_all(office, made, status=FAILED) == 4
    assert office.deliver_due() == [DELIVERED] * 4
    assert {d.status for d in office.deliveries()} == {"delivered"}


def _replay_all(
    office: Office,
    made: webhooks.Registered,
    *,
    account: Account | None = None,
    status: DeliveryStatus | None = None,
) -> int:
    (now,) = rows.query(office.database, "SELECT now() AS now")
    return webhooks.replay_between(
        office.database,
        made.endpoint.id,
        account_id=(account or office.account).id,
        since=now.now - A_DAY,
        until=now.now + A_DAY,
        status=status,
    )


# Tests


def test_a_test_is_sent_at_once_even_to_an_endpoint_that_is_left_alone_and_only_once(
    office: Office, receiver: Receiver
) -> None:
    made = office.register(receiver.url())
    receiver.answer = failing
    rows.execute(
        office.database, "UPDATE webhook_endpoints SET failures = 9, opened_until = now() + interval '5 min'"
    )

    sent = webhooks.send_test(office.database, made.endpoint.id, account_id=office.account.id)

    assert office.deliver_due() == [FAILED]
    (delivery,) = office.deliveries()
    assert (delivery.id, delivery.event, delivery.attempts) == (sent.id, Event.TEST, 1)
    assert b"This is a test of your webhook" in receiver.received[0].body


# Cost


def _any_due(office: Office) -> bool:
    with office.database.autocommit() as tx:
        return outbox.any_due(tx)


def _blocks(office: Office, statement: str, **parameters: Any) -> int:
    with office.database.transaction() as tx:
        (plan,) = tx.exec_driver_sql(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, parameters
        ).scalars()
    node = plan[0]["Plan"]
    return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])


def _backlog(office: Office, receiver: Receiver, *, number: int) -> None:
    """So many deliveries that are due for an endpoint, put straight into the table."""
    made = office.register(receiver.url())
    rows.execute(
        office.database,
        "INSERT INTO deliveries (account_id, endpoint_id, event) "
        "SELECT %(account)s, %(endpoint)s, 'test' FROM generate_series(1, %(number)s)",
        account=office.account.id,
        endpoint=made.endpoint.id,
        number=number,
    )
    rows.execute(office.database, "ANALYZE deliveries")


def test_a_look_and_a_release_cost_the_same_whatever_waits(office: Office, receiver: Receiver) -> None:
    """The plans must not read the backlog: 20,000 due deliveries, and a handful of index entries read."""
    _backlog(office, receiver, number=20_000)

    look = _blocks(office, outbox._ANY_DUE)
    release = _blocks(office, outbox._RELEASE, queue=WEBHOOKS, batch=100, alive_within=ALIVE_WITHIN)

    assert look < 60, f"{look} blocks were read"
    assert release < 200, f"{release} blocks were read"


def test_a_look_costs_next_to_nothing_when_nothing_waits(office: Office) -> None:
    rows.execute(office.database, "ANALYZE deliveries")

    assert _blocks(office, outbox._ANY_DUE) < 10
    assert not _any_due(office)


def test_a_look_at_a_backlog_of_an_endpoint_that_is_left_alone_is_cheap_too(
    office: Office, receiver: Receiver
) -> None:
    _backlog(office, receiver, number=20_000)
    rows.execute(
        office.database, "UPDATE webhook_endpoints SET failures = 9, opened_until = now() + interval '5 min'"
    )

    assert _blocks(office, outbox._ANY_DUE) < 60
    assert not _any_due(office)
