"""A customer's bucket details: tried on a real server, kept encrypted, and no way into our own network."""

import io
import json
import logging
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import structlog

from app import log
from app.buckets import Buckets, DeployType, Details
from app.db import Database
from app.errors import InvalidFields, RateLimited
from app.settings import Settings
from tests import rows, servers
from tests.conftest import Account
from tests.customers import DIRECTORY, PUBLIC_URL, Customer
from tests.servers import SECRET_KEY
from tests.waiting import eventually

WRONG_SECRET = "wrong-and-hush-hush"


@pytest.fixture(scope="module")
def customer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Customer]:
    server = servers.rclone(tmp_path_factory.mktemp("customer"))
    server.start()
    yield Customer(server)
    server.end()


@pytest.fixture
def buckets(customer: Customer, settings: Settings, database: Database) -> Buckets:
    customer.empty()
    return Buckets(customer.allowed(settings), database)


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    """Everything that is logged, by whomever, at any level."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    chatty = logging.getLogger("urllib3").level
    log.configure(log_format="json", level="debug")
    logging.getLogger("urllib3").setLevel(logging.DEBUG)
    stream = io.StringIO()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield stream
    logging.getLogger("urllib3").setLevel(chatty)
    root.handlers[:], root.level = before, level
    structlog.reset_defaults()


def problem(buckets: Buckets, account: Account, details: Details) -> tuple[str, str]:
    """The one field that is complained about, and how."""
    with pytest.raises(InvalidFields) as caught:
        buckets.set_bucket(account.id, details)
    (found,) = caught.value.problems
    return found.field, found.message


def targets(database: Database) -> list[rows.Look]:
    return rows.query(database, "SELECT * FROM storage_targets ORDER BY created_at")


def test_details_that_work_are_tried_and_kept_encrypted(
    buckets: Buckets, customer: Customer, account: Account, database: Database, logs: io.StringIO
) -> None:
    buckets.set_bucket(account.id, customer.details())

    current = buckets.current(account.id)
    assert current is not None
    assert (current.bucket, current.directory, current.public_url) == ("pictures", DIRECTORY, PUBLIC_URL)
    assert customer.names() == []  # the probe is gone
    (row,) = rows.query(database, "SELECT storage_targets::text AS whole FROM storage_targets")
    assert current.credentials is not None
    assert current.credentials in row.whole
    for secret in (SECRET_KEY, "AWS4-HMAC"):
        assert secret not in row.whole
        assert secret not in logs.getvalue()
    assert "bucket_set" in logs.getvalue()
    assert SECRET_KEY not in repr(current)
    assert current.credentials not in repr(current)


def test_a_probe_was_really_there(buckets: Buckets, customer: Customer, account: Account) -> None:
    """While its server is frozen the try hangs; a bucket that takes nothing would not have been taken."""
    customer.server.send(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            trying = pool.submit(buckets.set_bucket, account.id, customer.details())
            eventually(lambda: account.id in buckets._trying, within=5)
            assert not trying.done()
            with pytest.raises(RateLimited):
                buckets.set_bucket(account.id, customer.details())
            customer.server.send(signal.SIGCONT)
            assert trying.result(10).bucket == "pictures"
    finally:
        customer.server.send(signal.SIGCONT)


def test_a_wrong_secret_is_named_and_shows_nowhere(
    buckets: Buckets, customer: Customer, account: Account, database: Database, logs: io.StringIO
) -> None:
    field, message = problem(buckets, account, customer.details(aws_secret_access_key=WRONG_SECRET))

    assert field == "aws_access_key_id"
    assert "access key" in message
    assert targets(database) == []
    assert buckets.current(account.id) is None
    written = logs.getvalue()
    assert [json.loads(line)["event"] for line in written.splitlines() if "bucket_refused" in line]
    assert WRONG_SECRET not in written + message


def test_an_unknown_key_a_bucket_that_is_not_there_and_a_dead_port_are_told_apart(
    buckets: Buckets, customer: Customer, account: Account, database: Database, settings: Settings
) -> None:
    endpoint = customer.server.settings.s3_endpoint
    unknown_key = customer.details(aws_access_key_id="nobody")
    in_member = customer.details(endpoint_url=endpoint, bucket="not-there")
    in_address = customer.details(endpoint_url=f"{endpoint}/not-there")
    dead = Buckets(settings.model_copy(update={"bucket_allow": ("127.0.0.1:1",)}), database)

    assert problem(buckets, account, unknown_key)[0] == "aws_access_key_id"
    assert problem(buckets, account, in_member) == ("bucket", "there is no such bucket at the endpoint")
    assert problem(buckets, account, in_address)[0] == "endpoint_url"
    assert problem(dead, account, customer.details(endpoint_url="http://127.0.0.1:1/pictures")) == (
        "endpoint_url",
        "the endpoint does not answer, or not in time",
    )
    assert targets(database) == []


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "10.0.0.1",
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "192.168.1.1",
        "0.0.0.0",  # noqa: S104 - an address to be refused
        "[fd00:ec2::254]",
    ],
)
def test_nobody_is_led_into_our_own_network(
    host: str, customer: Customer, account: Account, database: Database, settings: Settings
) -> None:
    closed = Buckets(settings, database)

    for scheme in ("http", "https"):
        field, message = problem(
            closed, account, customer.details(endpoint_url=f"{scheme}://{host}/pictures")
        )
        assert field == "endpoint_url"
        assert "has no address that may be used" in message
    assert targets(database) == []


def test_an_allowed_server_does_not_open_the_clouds_metadata(
    customer: Customer, account: Account, database: Database, settings: Settings
) -> None:
    wide = Buckets(settings.model_copy(update={"bucket_allow": ("0.0.0.0/0",)}), database)

    field, _ = problem(wide, account, customer.details(endpoint_url="http://169.254.169.254/latest"))

    assert field == "endpoint_url"


def test_new_details_take_the_place_of_the_old_ones_of_that_account_and_server_type_alone(
    buckets: Buckets, customer: Customer, account: Account, stranger: Account, database: Database
) -> None:
    buckets.set_bucket(account.id, customer.details(image_directory="first"))
    buckets.set_bucket(stranger.id, customer.details(image_directory="hers"))
    buckets.set_bucket(account.id, customer.details(deploy_type="flux", image_directory="flux"))
    buckets.set_bucket(account.id, customer.details(image_directory="second"))

    state = {row.directory: row.removed_at is None for row in targets(database)}
    assert state == {"first": False, "hers": True, "flux": True, "second": True}
    mine, hers = buckets.current(account.id), buckets.current(stranger.id)
    assert mine is not None
    assert hers is not None
    assert (mine.directory, hers.directory) == ("second", "hers")


def test_details_sent_twice_at_once_leave_one_in_use(
    customer: Customer, account: Account, database: Database, settings: Settings
) -> None:
    """Two web processes: within one, an account tries one set of details at a time."""
    processes = [Buckets(customer.allowed(settings), database) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: one.set_bucket(account.id, customer.details()), processes))

    assert sorted(row.removed_at is None for row in targets(database)) == [False, False, False, True]


def test_a_reset_ends_the_use_for_new_jobs(
    buckets: Buckets, customer: Customer, account: Account, stranger: Account
) -> None:
    buckets.set_bucket(account.id, customer.details())
    buckets.set_bucket(stranger.id, customer.details())

    assert buckets.reset_bucket(account.id, DeployType.REALTIME)
    assert not buckets.reset_bucket(account.id, DeployType.REALTIME)
    assert buckets.current(account.id) is None
    assert buckets.current(stranger.id) is not None


def test_openstack_swift_is_as_good_a_bucket(
    account: Account, settings: Settings, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = tmp_path_factory.mktemp("swift")
    if reason := servers.why_not_swift(state):
        pytest.skip(reason)
    server = servers.swift(state)
    server.start()
    try:
        customer = Customer(server)
        buckets = Buckets(customer.allowed(settings), database)
        target = buckets.set_bucket(account.id, customer.details())
        bucket, _ = buckets.open(target.id)
        bucket.put("a-0.png", b"png", media_type="image/png", within=timedelta(seconds=10))

        assert customer.names() == [f"{DIRECTORY}/a-0.png"]
        assert customer.media_type(f"{DIRECTORY}/a-0.png") == "image/png"
        wrong = customer.details(aws_secret_access_key=WRONG_SECRET)
        assert problem(buckets, account, wrong)[0] == "aws_access_key_id"
    finally:
        server.end()
