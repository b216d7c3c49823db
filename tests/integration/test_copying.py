"""Outputs on their way into a customer's bucket: never lost, never copied twice, told when they wait."""

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from uuid_utils.compat import uuid7

from app import retention
from app.buckets import Buckets
from app.db import Database
from app.db import buckets as bucket_rows
from app.settings import Settings
from app.storage import Storage
from app.vault import Vault
from tests import rows, servers
from tests.conftest import Account
from tests.copy_shop import Shop, image, make_copier, name_of
from tests.customers import DIRECTORY, PUBLIC_URL, Customer
from workers.copying import Retried

NOTHING = Retried()


@pytest.fixture(scope="module")
def customer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Customer]:
    server = servers.rclone(tmp_path_factory.mktemp("customer"))
    server.start()
    yield Customer(server)
    server.end()


@pytest.fixture
def shop(
    customer: Customer, settings: Settings, database: Database, storage: Storage, account: Account
) -> Shop:
    customer.empty()
    allowed = customer.allowed(settings)
    target = Buckets(allowed, database).set_bucket(account.id, customer.details())
    copier = make_copier(allowed, database, storage)
    return Shop(allowed, database, storage, customer, account.id, target.id, copier)


def test_outputs_arrive_under_the_directory_with_their_links(shop: Shop) -> None:
    job_id = shop.job()

    found = shop.finish(job_id, images=3)

    for index, output in enumerate(found):
        name = name_of(shop, job_id, index)
        assert shop.customer.store.get(f"{DIRECTORY}/{name}") == image(job_id, index)
        assert shop.customer.media_type(f"{DIRECTORY}/{name}") == "image/png"
        assert output.copy_url == f"{PUBLIC_URL}/{DIRECTORY}/{name}"
        assert (output.copy_state, output.copy_attempts) == ("copied", 1)
        assert (output.copy_run_at, output.copy_error, output.persisted_at) == (None, None, None)
    assert len(shop.customer.names()) == 3
    assert shop.copier.retry_due() == NOTHING


def test_our_own_copy_of_one_that_arrived_expires_and_the_customers_does_not(shop: Shop) -> None:
    job_id = shop.job()
    shop.finish(job_id)

    assert shop.purge() == 1

    assert shop.output(job_id).state == "purged"
    assert shop.customer.names() == [f"{DIRECTORY}/{name_of(shop, job_id)}"]


def test_where_base64_was_asked_for_the_object_is_that_text(shop: Shop) -> None:
    job_id = shop.job(echo=orjson.dumps({"base64": True}).decode())

    (output,) = shop.finish(job_id)

    key = f"{DIRECTORY}/{name_of(shop, job_id, extension='base64')}"
    assert base64.b64decode(shop.customer.store.get(key), validate=True) == image(job_id, 0)
    assert (shop.customer.media_type(key) or "").startswith("text/plain")
    assert output.copy_url == f"{PUBLIC_URL}/{key}"


def test_an_outage_costs_nothing_but_time(shop: Shop) -> None:
    text, plain = shop.job(echo='{"base64": true}'), shop.job(retain_seconds=3600)

    with shop.customer.away():
        for job_id, told in ((text, "The endpoint does not answer"), (plain, "The bucket did not answer")):
            (output,) = shop.finish(job_id)
            assert (output.copy_state, output.copy_url) == ("pending", None)
            assert output.copy_error.startswith(told)
            assert "127.0.0.1" not in output.copy_error
            assert output.persisted_at == output.created_at
        assert shop.purge() == 0  # kept by us, however long ago it would have expired
        shop.let_time_pass("copy_run_at")
        assert shop.copier.retry_due().waiting >= 1
        assert shop.copier.retry_due() == NOTHING  # what is left waits as well
    shop.let_time_pass("copy_run_at")
    assert shop.copier.retry_due() == Retried(copied=2)

    now = datetime.now(UTC)
    for job_id, extension, kept_for in (
        (text, "base64", timedelta(days=1)),
        (plain, "png", timedelta(hours=1)),
    ):
        output, name = shop.output(job_id), name_of(shop, job_id, extension=extension)
        assert output.copy_url == f"{PUBLIC_URL}/{DIRECTORY}/{name}"
        assert (output.copy_state, output.copy_error, output.persisted_at) == ("copied", None, None)
        assert abs(output.expires_at - now - kept_for) < timedelta(minutes=1)
    assert len(shop.customer.names()) == 2
    assert shop.purge() == 2


def test_a_bucket_that_did_not_answer_is_left_in_peace_by_the_next_jobs(shop: Shop) -> None:
    first, second = shop.job(), shop.job()

    with shop.customer.away():
        tried = shop.finish(first, images=3)
        untried = shop.finish(second)

    assert [output.copy_attempts for output in tried] == [1, 0, 0]
    assert [output.copy_attempts for output in untried] == [0]
    assert {output.copy_state for output in (*tried, *untried)} == {"pending"}
    shop.let_time_pass("copy_run_at")
    assert shop.another_process().retry_due() == Retried(copied=4)


@pytest.mark.slow
def test_a_silent_bucket_holds_up_a_job_for_ten_seconds_and_no_longer(shop: Shop) -> None:
    job_id = shop.job()

    with shop.customer.frozen():
        begun = time.monotonic()
        found = shop.finish(job_id, images=4)
        assert 9 < time.monotonic() - begun < 13

    assert [output.copy_state for output in found] == ["pending"] * 4


def test_a_bucket_that_refuses_is_told_and_mended_by_new_details(shop: Shop) -> None:
    rows.execute(
        shop.database,
        "UPDATE storage_targets SET credentials = %(credentials)s",
        credentials=Vault(shop.settings).encrypt('["rclone", "a key that was changed"]'),
    )
    job_id = shop.job()
    (output,) = shop.finish(job_id)
    assert output.copy_state == "pending"
    assert "access key" in output.copy_error
    assert "changed" not in output.copy_error
    shop.let_time_pass("copy_run_at")
    assert shop.copier.retry_due() == Retried(waiting=1)
    shop.let_time_pass("copy_run_at", timedelta(hours=1))

    Buckets(shop.settings, shop.database).set_bucket(shop.account_id, shop.customer.details())

    assert shop.output(job_id).copy_run_at < datetime.now(UTC) + timedelta(minutes=4)  # it waits no longer
    shop.let_time_pass("copy_run_at")
    assert shop.copier.retry_due() == Retried(copied=1)
    assert shop.output(job_id).copy_url == f"{PUBLIC_URL}/{DIRECTORY}/{name_of(shop, job_id)}"


def test_after_three_days_it_is_given_up_and_kept_for_ever(shop: Shop) -> None:
    job_id = shop.job()

    with shop.customer.away():
        shop.finish(job_id)
        shop.let_time_pass("created_at", timedelta(days=-2))
        shop.let_time_pass("persisted_at", timedelta(days=-2))
        shop.let_time_pass("copy_run_at")
        assert shop.copier.retry_due() == Retried(waiting=1)
        shop.let_time_pass("created_at", timedelta(days=-2))
        shop.let_time_pass("persisted_at", timedelta(days=-2))
        shop.let_time_pass("copy_run_at")
        assert shop.copier.retry_due() == Retried(given_up=1)

    output = shop.output(job_id)
    assert (output.copy_state, output.copy_run_at) == ("given_up", None)
    assert output.copy_error.endswith("Darkroom tried for 3 days and keeps the image itself.")
    assert shop.purge() == 0
    assert shop.storage.get(output.key) == image(job_id, 0)
    assert shop.copier.retry_due() == NOTHING


def test_what_its_owner_kept_while_the_copy_waited_stays_kept(shop: Shop) -> None:
    kept, published, let_go, persistent = shop.job(), shop.job(), shop.job(), shop.job(persist=True)
    with shop.customer.away():
        for job_id in (kept, published, let_go, persistent):
            shop.finish(job_id)
    who = {"account_id": shop.account_id}
    retention.persist(shop.database, shop.output(kept).id, **who)
    retention.publish(shop.database, shop.output(published).id, **who)
    retention.unpublish(shop.database, shop.output(published).id, **who)
    retention.persist(shop.database, shop.output(let_go).id, **who)
    retention.unpersist(shop.settings, shop.database, shop.output(let_go).id, **who)
    assert shop.purge() == 0  # the one that was let go waits for its copy all the same

    shop.let_time_pass("copy_run_at")
    assert shop.another_process().retry_due() == Retried(copied=4)

    assert shop.purge() == 1
    assert [shop.output(job_id).state for job_id in (kept, published, let_go, persistent)] == [
        "live",
        "live",
        "purged",
        "live",
    ]


def test_a_reset_breaks_no_promise_and_the_keys_go_with_the_last_of_them(shop: Shop) -> None:
    waiting = shop.job()
    with shop.customer.away():
        shop.finish(waiting)
    Buckets(shop.settings, shop.database).reset_bucket(shop.account_id, shop.customer.details().deploy_type)
    rows.execute(shop.database, "UPDATE storage_targets SET removed_at = removed_at - interval '2 hours'")

    retention.sweep(shop.database)
    assert credentials(shop) is not None
    running = shop.job()
    shop.let_time_pass("copy_run_at")
    assert shop.another_process().retry_due() == Retried(copied=1)
    retention.sweep(shop.database)
    assert credentials(shop) is not None  # a queued job was promised them too
    shop.copier = shop.another_process()
    assert [output.copy_state for output in shop.finish(running)] == ["copied"]
    retention.sweep(shop.database)
    assert credentials(shop) is None

    assert len(shop.customer.names()) == 2
    late = shop.job()
    shop.copier = shop.another_process()
    assert [output.copy_state for output in shop.finish(late)] == ["pending"]
    assert shop.output(late).copy_error == "The bucket's details were reset, and its keys are deleted."


def credentials(shop: Shop) -> str | None:
    (row,) = rows.query(shop.database, "SELECT credentials FROM storage_targets")
    found: str | None = row.credentials
    return found


def test_keys_of_details_in_use_or_just_reset_are_not_swept(shop: Shop) -> None:
    retention.sweep(shop.database)
    assert credentials(shop) is not None
    Buckets(shop.settings, shop.database).reset_bucket(shop.account_id, shop.customer.details().deploy_type)
    retention.sweep(shop.database)  # a request may have read them a moment ago
    assert credentials(shop) is not None


def test_several_that_retry_at_once_copy_each_output_once(shop: Shop) -> None:
    job_id = shop.job()
    with shop.customer.away():
        shop.finish(job_id, images=30)
    shop.let_time_pass("copy_run_at")
    before = {output.index: output.copy_attempts for output in shop.outputs(job_id)}
    processes = [shop.another_process() for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda process: process.retry_due(), processes))

    assert sum(each.copied for each in done) == 30
    found = shop.outputs(job_id)
    assert {output.index: output.copy_attempts - 1 for output in found} == before
    assert all(output.copy_state == "copied" for output in found)
    assert len(shop.customer.names()) == 30


def test_a_copy_whose_process_died_is_made_by_another_and_the_dead_writes_nothing(shop: Shop) -> None:
    job_id = shop.job()
    with shop.customer.away():
        shop.finish(job_id)
    shop.let_time_pass("copy_run_at")
    with shop.database.autocommit() as tx:
        dead = bucket_rows.claim_copy(tx, lease=timedelta(minutes=3))
    assert dead is not None
    assert shop.another_process().retry_due() == NOTHING  # it may still be at it

    now = timedelta(0)
    shop.let_time_pass("copy_run_at", timedelta(minutes=-4))
    with shop.database.autocommit() as tx:
        assert bucket_rows.claim_copy(tx, lease=now) is not None
        assert not bucket_rows.settle_copied(tx, dead, url="https://late", retention=now)
        assert not bucket_rows.settle_failed(tx, dead, error="", last_error="", wait=now, patience=now)
    assert shop.another_process().retry_due() == Retried(copied=1)
    assert shop.output(job_id).copy_url == f"{PUBLIC_URL}/{DIRECTORY}/{name_of(shop, job_id)}"


def test_a_dead_bucket_does_not_hold_up_another_customers(
    shop: Shop, stranger: Account, database: Database
) -> None:
    dead, alive = shop.job(), shop.job()
    with shop.customer.away():
        shop.finish(alive)
        shop.finish(dead, images=40)
    rows.execute(
        database,
        "INSERT INTO storage_targets SELECT %(new)s, %(owner)s, deploy_type, 'http://127.0.0.1:1/pictures', "
        "region, bucket, directory, public_url, credentials FROM storage_targets",
        new=uuid7(),
        owner=stranger.id,
    )
    rows.execute(
        database,
        "UPDATE jobs SET storage_target_id = (SELECT id FROM storage_targets WHERE account_id = %(owner)s) "
        "WHERE id = %(id)s",
        owner=stranger.id,
        id=dead,
    )
    shop.let_time_pass("copy_run_at")
    rows.execute(
        database,
        "UPDATE outputs SET copy_run_at = copy_run_at - interval '1 hour' WHERE job_id = %(id)s",
        id=dead,
    )

    done = shop.another_process().retry_due()

    assert done.copied == 1
    assert 1 <= done.waiting <= 8  # not forty
    assert shop.output(alive).copy_state == "copied"


def test_an_image_that_was_deleted_meanwhile_is_not_copied(shop: Shop) -> None:
    job_id = shop.job()
    with shop.customer.away():
        (output,) = shop.finish(job_id)
    retention.discard(shop.database, output.id, account_id=shop.account_id)
    shop.let_time_pass("copy_run_at")

    assert shop.another_process().retry_due() == NOTHING
    retention.sweep(shop.database)

    assert shop.output(job_id).copy_state == "given_up"
    assert shop.customer.names() == []


def test_an_object_of_ours_that_is_not_there_fails_no_job(shop: Shop) -> None:
    row: dict[str, object] = {"key": "outputs/nowhere.png", "sha256": "0" * 64, "index": 0, "format": "png"}

    (added,) = shop.copier.copy_now(shop.target_id, [row], prefix=uuid7(), as_text=False)

    assert added["copy_state"] == "pending"
    assert added["copy_error"] == "The object store holds no object under this key."
    assert 30 <= float(str(added["copy_wait_seconds"])) <= 37.5
