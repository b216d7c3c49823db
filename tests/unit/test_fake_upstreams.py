"""The fake upstreams in the hands of a plain customer: what all vendors share, scripts and limits."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.upstreams import VENDORS, Kind, Upstream, draw, moods, shows, upstream
from tests.upstreams.pictures import encode
from tests.upstreams.plain import PROMPT, SEED, Customer, opened
from tests.waiting import eventually


@pytest.fixture(params=VENDORS)
def fake(request: pytest.FixtureRequest) -> Iterator[Upstream]:
    with upstream(request.param) as made:
        yield made


@pytest.fixture
def customer(fake: Upstream) -> Customer:
    return Customer(fake)


# --- what vendors have in common ----------------------------------------------------------------------------


def test_a_picture_tells_its_prompt_seed_and_index_and_an_order_is_charged_once(
    fake: Upstream, customer: Customer
) -> None:
    order = customer.order()

    (charge,) = fake.charged
    ((data, _),) = customer.fetch(order)
    image = opened(data)
    assert image.size == (charge.width, charge.height)
    assert (charge.prompt, charge.operation, charge.images) == (PROMPT, "text_to_image", 1)
    assert fake.vendor == "realm" or charge.seed == SEED
    assert shows(image, PROMPT, seed=charge.seed)
    assert not shows(image, PROMPT, seed=charge.seed + 1)
    assert not shows(image, PROMPT, seed=charge.seed, index=1)
    assert not shows(image, "a ship", seed=charge.seed)


def test_a_picture_of_a_thumbnail_is_drawn_in_less_than_five_milliseconds() -> None:
    def took() -> float:
        start = time.perf_counter()
        encode(draw(PROMPT, seed=SEED, width=64, height=64), "png")
        return time.perf_counter() - start

    assert min(took() for _ in range(5)) < 0.005


def test_a_wrong_key_is_refused_with_401_and_nothing_is_charged(fake: Upstream, customer: Customer) -> None:
    fake.key = "another"

    answer = customer.order()

    assert answer.status_code == 401
    assert answer.json()
    assert fake.charged == []


def test_a_missing_prompt_is_refused_with_400_and_nothing_is_charged(
    fake: Upstream, customer: Customer
) -> None:
    answer = customer.order(prompt=None)

    assert answer.status_code == 400
    assert "prompt" in answer.text
    assert fake.charged == []


def test_the_ledger_has_every_request_with_body_headers_and_answer(
    fake: Upstream, customer: Customer
) -> None:
    customer.order()
    customer.get("/nothing")

    first, second = fake.calls
    assert (first.number, first.method, first.kind, first.mood) == (1, "POST", Kind.SUBMIT, None)
    assert first.body["prompt"] == PROMPT
    assert first.headers["content-type"] == "application/json"
    assert first.status is not None
    assert first.status < 300
    assert (second.path, second.kind) == ("/nothing", Kind.OTHER)
    assert second.status is not None
    assert second.status >= 400
    assert second.at >= first.at
    assert (datetime.now(UTC) - first.when).total_seconds() < 5
    assert fake.submits == [first]


def test_an_idempotency_key_is_honoured_only_when_told_to(fake: Upstream, customer: Customer) -> None:
    def order() -> Any:
        headers = {"Idempotency-Key": "k1", "x-api-key": fake.key, "Authorization": f"Bearer {fake.key}"}
        path, body = fake.submits[0].path, fake.submits[0].body
        return customer.post(path, json=body, headers=headers).json()

    customer.order()
    order()
    order()
    assert [charge.idempotency_key for charge in fake.charged] == [None, "k1", "k1"]

    fake.honours_idempotency = True
    assert order() == order()
    assert len(fake.charged) == 4


def test_many_customers_at_a_time_lose_no_line_of_the_ledger(fake: Upstream, customer: Customer) -> None:
    with ThreadPoolExecutor(8) as many:
        list(many.map(lambda _: customer.order(), range(16)))

    assert len(fake.submits) == len(fake.charged) == 16
    assert sorted(call.number for call in fake.calls) == list(range(1, 17))
    assert len({charge.id for charge in fake.charged}) == 16


# --- scripts and limits -------------------------------------------------------------------------------------


def test_moods_are_used_up_in_order_by_requests_of_their_kind_and_then_comes_what_is_for_good() -> None:
    with upstream("realm") as fake:
        customer = Customer(fake)
        fake.script(moods.UNAVAILABLE.on(Kind.POLL), moods.UNAVAILABLE, moods.BAD_GATEWAY)
        fake.always(moods.SERVER_ERROR)

        assert [customer.order().status_code for _ in range(4)] == [503, 502, 500, 500]
        assert [mood.kind for mood in fake.unused()] == [Kind.POLL]
        fake.calm()
        assert customer.look(customer.order()).ok


def test_a_rate_limit_lets_so_many_pass_in_a_window_and_counts_both(
    fake: Upstream, customer: Customer
) -> None:
    fake.limit(2, per_seconds=60)

    answers = [customer.order() for _ in range(4)]

    assert [answer.ok for answer in answers] == [True, True, False, False]
    assert answers[3].status_code == 429
    assert 50 < int(answers[3].headers["Retry-After"]) <= 60
    assert (fake.allowed, fake.refused, len(fake.charged)) == (2, 2, 2)


def test_a_window_ends_and_pictures_are_fetched_outside_all_limits() -> None:
    with upstream("openai") as fake:
        customer = Customer(fake)
        order = customer.order()
        fake.limit(0, per_seconds=60)
        assert customer.order().status_code == 429
        assert len(customer.fetch(order)) == 1

        fake.limit(1, per_seconds=0.1)
        assert customer.order().ok
        eventually(lambda: customer.order().ok, within=2)


def test_a_storm_refuses_everything_until_it_is_over() -> None:
    with upstream("openai") as fake:
        customer = Customer(fake)
        until = time.monotonic() + 0.2
        fake.storm(until, form="retry_after_date")

        told = parsedate_to_datetime(customer.order().headers["Retry-After"])
        assert abs(told - datetime.now(UTC)) <= timedelta(seconds=2)
        eventually(lambda: customer.order().ok, within=2)
        assert time.monotonic() >= until
        assert fake.allowed == len(fake.charged) == 1
        assert fake.refused == len(fake.submits) - 1


def test_a_fake_that_breaks_says_so_when_its_context_ends() -> None:
    with pytest.raises(AssertionError, match="broke"), upstream("modelslab") as fake:
        fake.ledger.breakages.append("Traceback")
