"""The relay's part for webhooks against a real broker: what is published, repaired and taken back."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from kombu import Connection

from app.broker import DELIVER, WEBHOOKS, Broker, declared_queue
from app.db import Database
from app.db import outbox as statements
from app.dispatch import Relay
from app.domain import catalog
from app.domain.webhook import DeliveryStatus
from app.errors import BrokerDown
from app.outbox import Outbox
from app.settings import Settings
from tests import office as offices
from tests import rows
from tests.conftest import Account
from tests.office import Office
from tests.servers.receiver import Receiver, receiving
from tests.waiting import eventually


@pytest.fixture
def office(settings: Settings, database: Database, account: Account) -> Office:
    return offices.opened(settings, database, account)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    opened = Broker(settings)
    opened.publish(WEBHOOKS, [], task=DELIVER)
    opened._connection.default_channel.client.flushall()
    yield opened
    opened.close()


@pytest.fixture
def outbox(office: Office, broker: Broker) -> Outbox:
    return Outbox(office.settings, office.database, broker)


def test_doctor_counts_what_is_due_and_not_what_waits_for_a_dead_endpoint(
    office: Office, receiver: Receiver
) -> None:
    office.register(receiver.url())
    office.complete()

    with office.database.autocommit() as tx:
        assert statements.load(tx, queue=WEBHOOKS).queued == 1
    rows.execute(
        office.database,
        "UPDATE webhook_endpoints SET opened_until = now() + interval '1 minute'",
    )
    with office.database.autocommit() as tx:
        load = statements.load(tx, queue=WEBHOOKS)
    assert (load.queued, load.processing, load.oldest_seconds) == (0, 0, 0.0)


def test_a_due_delivery_is_one_message_for_the_task_that_posts_it(
    office: Office, receiver: Receiver, outbox: Outbox, settings: Settings
) -> None:
    office.register(receiver.url())
    office.complete()

    assert outbox.release_due() == 1
    assert outbox.release_due() == 0

    with Connection(settings.broker_url.get_secret_value(), connect_timeout=5) as connection:
        bound = declared_queue(WEBHOOKS, queue_type=settings.broker_queue_type)(connection.default_channel)
        message = bound.get()
        assert message is not None
        message.ack()
    assert message.headers["task"] == DELIVER
    assert message.payload[0] == [str(office.delivery().id)]


def test_a_relay_releases_deliveries_beside_jobs(office: Office, receiver: Receiver, broker: Broker) -> None:
    office.register(receiver.url())
    office.complete(3)
    relay = Relay(office.settings, office.database, broker, catalog.load())

    done = relay.release_due()

    assert (done.released, done.more) == (3, False)
    # Less where the look at deliveries was slow: then the next follows as soon as it has rested.
    assert timedelta(0) < done.wait <= office.settings.relay_poll
    assert broker.depth(WEBHOOKS) == 3


def test_a_running_relay_rescues_and_repairs_deliveries(
    office: Office, receiver: Receiver, broker: Broker
) -> None:
    office.register(receiver.url())
    office.complete(2)
    lost, silent = (d.id for d in office.deliveries())
    rows.execute(
        office.database,
        "UPDATE deliveries SET dispatched_at = now() - interval '1 min', attempts = 1, "
        "lease_until = CASE WHEN id = %(silent)s THEN now() - interval '1 s' END",
        silent=silent,
    )
    stop = threading.Event()
    relay = Relay(office.settings, office.database, broker, catalog.load())
    thread = threading.Thread(target=relay.run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: broker.depth(WEBHOOKS) == 2, within=10)
    finally:
        stop.set()
        thread.join(timeout=10)

    assert office.deliverer.deliver(lost) is DeliveryStatus.DELIVERED
    assert office.deliverer.deliver(silent) is DeliveryStatus.DELIVERED


def test_deliveries_are_due_again_when_the_broker_refuses(office: Office, receiver: Receiver) -> None:
    office.register(receiver.url())
    office.complete()
    url = type(office.settings.broker_url)("redis://127.0.0.1:1/0")
    away = Broker(office.settings.model_copy(update={"broker_url": url}))

    with pytest.raises(BrokerDown):
        Outbox(office.settings, office.database, away).release_due()

    assert office.delivery().dispatched_at is None
    assert len(office.release()) == 1


def test_a_wake_up_the_broker_lost_is_sent_again(
    office: Office, receiver: Receiver, outbox: Outbox, broker: Broker
) -> None:
    office.register(receiver.url())
    office.complete(3)
    rows.execute(office.database, "UPDATE deliveries SET dispatched_at = now() - interval '1 min'")
    broker.publish(WEBHOOKS, [office.deliveries()[0].id], task=DELIVER)

    assert outbox.repair() == 2
    assert outbox.release_due() == 2
    assert broker.depth(WEBHOOKS) == 3


def test_a_wake_up_that_waits_long_and_one_that_is_worked_on_are_not_sent_again(
    office: Office, receiver: Receiver, outbox: Outbox, broker: Broker
) -> None:
    office.register(receiver.url())
    office.complete(2)
    waits, worked_on = (d.id for d in office.deliveries())
    rows.execute(office.database, "UPDATE deliveries SET dispatched_at = now() - interval '1 min'")
    rows.execute(
        office.database,
        "UPDATE deliveries SET lease_until = now() + interval '1 min' WHERE id = %(id)s",
        id=worked_on,
    )
    broker.publish(WEBHOOKS, [waits], task=DELIVER)

    assert outbox.repair() == 0
    assert broker.depth(WEBHOOKS) == 1


def test_what_waits_in_vain_is_given_up_without_anybody_asking(
    office: Office, receiver: Receiver, outbox: Outbox
) -> None:
    office.register(receiver.url())
    office.complete()
    rows.execute(
        office.database, "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'late'"
    )

    outbox.give_up_now_and_then()
    assert office.delivery().status == "failed"

    rows.execute(office.database, "UPDATE deliveries SET status = 'pending', finished_at = NULL")
    outbox.give_up_now_and_then()  # less than a minute later
    assert office.delivery().status == "pending"


def test_a_look_that_was_slow_is_not_repeated_at_once_and_jobs_do_not_wait_for_it(
    office: Office, outbox: Outbox, broker: Broker
) -> None:
    """Thousands of endpoints wait for the same dead host, each with an order's number in its URL."""
    rows.execute(
        office.database,
        "INSERT INTO webhook_endpoints (id, account_id, url, form, scope, events, secret) "
        "SELECT gen_random_uuid(), %(account)s, 'http://127.0.0.1:1/' || number, 'jobs', 'request', "
        "'{job.completed}', 'x' FROM generate_series(1, 20000) AS number",
        account=office.account.id,
    )
    rows.execute(
        office.database,
        "INSERT INTO deliveries (account_id, endpoint_id, event, run_at) "
        "SELECT account_id, id, 'job.completed', now() + interval '1 hour' FROM webhook_endpoints",
    )

    assert outbox.release_due() == 0

    assert outbox.rest.total_seconds() > 0
    relay = Relay(office.settings, office.database, broker, catalog.load())
    assert relay.release_due().wait <= office.settings.relay_poll
