"""A customer's own bucket as the ModelsLab dialect has it: details sent and reset, links promised, kept."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from app import web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows, servers
from tests.conftest import Account
from tests.customers import DIRECTORY, PUBLIC_URL, Customer
from tests.drawing import drawing
from tests.realtime import AT_ONCE, ENTERPRISE, IMAGES, ROOT, House, body, image_of, refused
from tests.servers import SECRET_KEY
from tests.waiting import eventually

UPDATE, RESET = ROOT + "update_s3", ROOT + "reset_s3"


@pytest.fixture(scope="module")
def customer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Customer]:
    server = servers.rclone(tmp_path_factory.mktemp("customer"))
    server.start()
    yield Customer(server)
    server.end()


@pytest.fixture(scope="module")
def app(base_settings: Settings, customer: Customer) -> Iterator[tuple[Flask, Settings]]:
    """One application for all tests of this file; each comes from an account of its own."""
    changes = {"rate_limit_per_minute": 100_000, "sync_wait": AT_ONCE}
    settings = customer.allowed(base_settings.model_copy(update=changes))
    flask = web.create_app(settings)
    yield flask, settings
    web.close(flask)


@pytest.fixture
def house(
    app: tuple[Flask, Settings],
    database: Database,
    storage: Storage,
    account: Account,
    customer: Customer,
) -> House:
    """Nobody draws, and nobody waits."""
    customer.empty()
    flask, settings = app
    return House(flask, flask.test_client(), settings, database, storage, account)


def details(customer: Customer, **changes: Any) -> dict[str, Any]:
    """What a customer sends, secrets and all."""
    sent = customer.details()
    members = {
        **sent.model_dump(mode="json"),
        "aws_access_key_id": sent.aws_access_key_id.get_secret_value(),
        "aws_secret_access_key": SECRET_KEY,
    }
    return {**members, **changes}


def draw(house: House, answer: dict[str, Any]) -> None:
    """Have a worker run until a job has ended."""
    with drawing(house.settings, house.database, house.storage):
        eventually(lambda: house.job(answer["id"]).finished_at, within=20)


def set_copies(house: House, state: str) -> None:
    """Have all outputs stand like this, as a worker that copies leaves them."""
    rows.execute(
        house.database,
        "UPDATE outputs SET copy_state = %(state)s, "
        "copy_url = CASE WHEN %(state)s = 'copied' THEN 'https://cdn.customer.example/' || index END",
        state=state,
    )


def test_details_that_work_are_kept_and_never_told_again(house: House, customer: Customer) -> None:
    answer = house.post(UPDATE, **details(customer))

    assert answer.get_json() == {"status": "success", "message": "S3 details updated"}
    assert SECRET_KEY not in answer.text
    (row,) = rows.query(house.database, "SELECT * FROM storage_targets")
    assert (row.account_id, row.deploy_type, row.removed_at) == (house.account.id, "realtime", None)
    assert customer.names() == []


def test_details_for_another_server_are_kept_with_a_word_about_it(house: House, customer: Customer) -> None:
    answer = house.answer(UPDATE, **details(customer, deploy_type=None))
    queued = house.generate()

    assert answer["status"] == "success"
    assert answer["tip"] == (
        "These are the details of text_to_image; the images of this API use those of deploy_type realtime."
    )
    assert queued["future_links"][0].startswith("http://localhost/outputs/")


def test_details_that_do_not_work_are_refused_by_name_and_change_nothing(
    house: House, customer: Customer
) -> None:
    house.answer(UPDATE, **details(customer))
    for changes, field in (
        ({"aws_secret_access_key": "wrong-and-hush-hush"}, "aws_access_key_id"),
        ({"bucket": "not-there", "endpoint_url": customer.server.settings.s3_endpoint}, "bucket"),
        ({"endpoint_url": "http://10.0.0.1/pictures"}, "endpoint_url"),
        ({"endpoint_url": None}, "endpoint_url"),
        ({"public_url": "ftp://x"}, "public_url"),
        ({"image_directory": "../up"}, "image_directory"),
        ({"deploy_type": "fridge"}, "deploy_type"),
        ({"region_name": 5}, "region_name"),
    ):
        answer = house.post(UPDATE, **details(customer, **changes))
        assert refused(answer, 400).keys() == {field}
        assert "hush" not in answer.text
    (row,) = rows.query(house.database, "SELECT removed_at FROM storage_targets")
    assert row.removed_at is None


@pytest.mark.parametrize(
    ("members", "extension"), [({}, "png"), ({"base64": True}, "base64"), ({"temp": "no"}, "png")]
)
def test_links_lead_into_the_bucket_before_anything_is_there(
    members: dict[str, Any], extension: str, house: House, customer: Customer
) -> None:
    house.answer(UPDATE, **details(customer))

    answer = house.generate(samples=2, **members)

    prefix = answer["meta"]["file_prefix"]
    assert answer["future_links"] == [
        f"{PUBLIC_URL}/{DIRECTORY}/{prefix}-{index}.{extension}" for index in range(2)
    ]
    assert house.job(answer["id"]).storage_target_id is not None


def test_temporary_images_never_go_there(house: House, customer: Customer) -> None:
    house.answer(UPDATE, **details(customer))

    answer = house.generate(temp=True)

    assert answer["future_links"][0].startswith("http://localhost/outputs/")
    assert house.job(answer["id"]).storage_target_id is None


def test_another_accounts_bucket_is_nobody_elses(house: House, customer: Customer, stranger: Account) -> None:
    house.answer(UPDATE, **details(customer))

    answer = house.generate(key=stranger.key)

    assert answer["future_links"][0].startswith("http://localhost/outputs/")


def test_what_was_promised_the_bucket_still_goes_there_after_a_reset(
    house: House, customer: Customer
) -> None:
    house.answer(UPDATE, **details(customer))
    once = {"Idempotency-Key": "order-1"}
    before = house.post(ENTERPRISE + "text2img", headers=once, **body()).get_json()

    reset = house.answer(RESET, deploy_type="realtime")
    again = house.answer(RESET, deploy_type="realtime")
    same = house.post(ENTERPRISE + "text2img", headers=once, **body()).get_json()
    fresh = house.generate()

    assert reset == {"status": "success", "message": "S3 details reset"}
    assert again == {**reset, "tip": "There were none for deploy_type realtime."}
    assert before["future_links"] == same["future_links"]
    assert before["future_links"][0].startswith(PUBLIC_URL)
    assert fresh["future_links"][0].startswith("http://localhost/outputs/")


def test_a_copied_image_is_told_by_its_link_there_also_when_ours_has_expired(house: House) -> None:
    answer = house.generate(samples=2)
    draw(house, answer)
    set_copies(house, "copied")
    rows.execute(house.database, "UPDATE outputs SET persisted_at = NULL, expires_at = now()")

    fetched = house.answer(f"{IMAGES}fetch/{answer['id']}")

    assert fetched["output"] == ["https://cdn.customer.example/0", "https://cdn.customer.example/1"]
    assert fetched["proxy_links"] == fetched["output"]
    assert "tip" not in fetched


@pytest.mark.parametrize("state", ["pending", "given_up"])
def test_an_image_the_bucket_did_not_take_is_told_by_our_link_and_said_to_be_so(
    state: str, house: House
) -> None:
    answer = house.generate(base64=True)
    draw(house, answer)
    set_copies(house, state)

    fetched = house.answer(f"{ENTERPRISE}fetch/{answer['id']}")

    assert fetched["output"] == [
        f"http://localhost/outputs/{answer['meta']['file_prefix']}-0.base64",
    ]
    assert "Your bucket has not taken every image." in fetched["tip"]
    assert house.get(fetched["output"][0]).status_code == 200


@pytest.mark.parametrize("as_text", [False, True], ids=["images", "base64"])
def test_images_land_in_the_bucket_under_the_very_links_that_were_promised(
    as_text: bool,  # noqa: FBT001 - the case
    house: House,
    customer: Customer,
) -> None:
    house.answer(UPDATE, **details(customer))
    queued = house.generate(samples=2, base64=as_text)

    draw(house, queued)
    fetched = house.answer(f"{ENTERPRISE}fetch/{queued['id']}")

    assert fetched == {"status": "success", "id": queued["id"], "output": queued["future_links"]}
    names = [link.removeprefix(f"{PUBLIC_URL}/") for link in queued["future_links"]]
    assert sorted(customer.names()) == sorted(names)
    data = customer.store.get(names[0])
    assert image_of(base64.b64decode(data, validate=True) if as_text else data).size == (64, 48)


def test_a_bucket_that_is_away_loses_no_image(house: House, customer: Customer) -> None:
    house.answer(UPDATE, **details(customer))
    queued = house.generate()

    with customer.away():
        draw(house, queued)
    fetched = house.answer(f"{ENTERPRISE}fetch/{queued['id']}")

    (url,) = fetched["output"]
    assert url.startswith("http://localhost/outputs/")
    assert house.get(url).status_code == 200
    assert "Your bucket has not taken every image." in fetched["tip"]
