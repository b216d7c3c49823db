"""Every mood of the fake upstreams, met by a plain customer: what an adapter will have to cope with."""

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
import requests

from tests.upstreams import MOODS, VENDORS, Kind, Mood, Upstream, cases, moods, shows, upstream
from tests.upstreams.plain import PROMPT, Customer, opened
from tests.waiting import eventually

EACH_VENDOR = pytest.mark.parametrize("vendor", VENDORS)
Check = Callable[[requests.Response], object]


def no_json(answer: requests.Response) -> bool:
    with suppress(ValueError, RecursionError):
        json.loads(answer.content)
        return False
    return True


def drips(answer: requests.Response) -> bool:
    start = time.monotonic()
    assert len(answer.raw.read(3)) == 3
    return time.monotonic() - start >= 0.03


def test_every_mood_has_a_name_of_its_own_and_says_what_it_does_and_strikes_somebody() -> None:
    assert len({mood.name for mood in MOODS}) == len(MOODS)
    assert all(mood.says.endswith(".") for mood in MOODS)
    assert {mood.name for _, mood in cases()} == {mood.name for mood in MOODS}
    assert {vendor for vendor, _ in cases()} == set(VENDORS)


def test_a_mood_is_refused_where_it_makes_no_sense() -> None:
    with upstream("openai") as fake:
        with pytest.raises(AssertionError):
            fake.script(moods.LOST)
        with pytest.raises(AssertionError):
            fake.script(moods.UNAVAILABLE.on(Kind.POLL))
        with pytest.raises(AssertionError):
            moods.PENDING.on(Kind.DOWNLOAD)


# --- stage wire ---------------------------------------------------------------------------------------------

ANSWERED: dict[str, Check] = {
    "slow": lambda answer: answer.ok and answer.elapsed >= timedelta(seconds=0.06),
    "slow_drip": drips,
    "endless": lambda answer: len(answer.raw.read(3_000_000)) == 3_000_000,
    "garbage": lambda answer: answer.status_code == 200 and no_json(answer),
    "truncated_json": no_json,
    "deep_json": no_json,
    "wrong_json": lambda answer: isinstance(answer.json(), list),
    "html_200": lambda answer: answer.status_code == 200 and b"<html>" in answer.content,
}
UNANSWERED = {
    "hang": requests.ReadTimeout,
    "reset": requests.ConnectionError,
    "cut": requests.exceptions.ChunkedEncodingError,
}


@pytest.mark.parametrize(("vendor", "mood"), cases("wire"), ids=str)
def test_the_work_is_charged_and_its_answer_is_lost_or_mangled(vendor: str, mood: Mood) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        order = customer.order()
        fake.script(mood.lasting(0.06) if mood.name == "slow" else mood)

        if mood.name in UNANSWERED:
            with pytest.raises(UNANSWERED[mood.name]):
                Customer(fake, timeout=0.06 if mood.name == "hang" else 5).meet(mood.kind, order)
        else:
            streaming = Customer(fake, stream=mood.name in {"slow_drip", "endless"})
            with streaming.meet(mood.kind, order) as answer:
                assert ANSWERED[mood.name](answer)

        assert len(fake.charged) == (2 if mood.kind is Kind.SUBMIT else 1)
        assert [call.mood for call in fake.calls if call.mood] == [mood.name]
        assert fake.unused() == []
        assert customer.meet(mood.kind, order).ok


def port_of(fake: Upstream) -> int:
    port = urlsplit(fake.base_url).port
    assert port is not None
    return port


def test_an_answer_that_hangs_ends_with_the_server() -> None:
    with upstream("realm") as fake, socket.create_connection(("127.0.0.1", port_of(fake))) as line:
        fake.script(moods.HANG)
        line.sendall(b"POST /v1/images/generate HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        eventually(lambda: fake.submits, within=2)
        start = time.monotonic()
        fake.__exit__(None)
        assert line.recv(10) == b""

    assert time.monotonic() - start < 2


def test_a_submit_can_be_reset_before_or_after_it_is_charged() -> None:
    with upstream("openai") as fake:
        fake.script(moods.RESET.charging(False), moods.RESET, moods.SERVER_ERROR.charging())
        for _ in range(2):
            with pytest.raises(requests.ConnectionError):
                Customer(fake).order()
        assert len(fake.charged) == 1

        assert Customer(fake).order().status_code == 500
        assert len(fake.charged) == 2


# --- stage instead ------------------------------------------------------------------------------------------


def says(*words: str) -> Check:
    return lambda answer: all(word in answer.text for word in words)


def retry_after(answer: requests.Response) -> str:
    return str(answer.headers["Retry-After"])


def seconds_until_the_date(answer: requests.Response) -> float:
    return (parsedate_to_datetime(retry_after(answer)) - datetime.now(UTC)).total_seconds()


STATUS = {
    "server_error": 500,
    "bad_gateway": 502,
    "unavailable": 503,
    "gateway_timeout": 504,
    "bad_key": 401,
    "no_credit": 402,
    "quota_spent": 429,
    "content_refused": 400,
    "content_policy": 400,
    "expired": 404,
    "redirected": 302,
    "redirected_inside": 307,
    **dict.fromkeys(("error_in_200", "field_errors_in_200", "messege_in_200"), 200),
    **dict.fromkeys([mood.name for mood in MOODS if mood.name.startswith("retry_after")], 429),
}
BODY: dict[str, Check] = {
    "retry_after_seconds": lambda answer: retry_after(answer) == "1",
    "retry_after_date": lambda answer: 0.5 < seconds_until_the_date(answer) <= 3,
    "retry_after_absent": lambda answer: "Retry-After" not in answer.headers,
    "retry_after_absurd": lambda answer: not retry_after(answer).isdecimal(),
    "bad_gateway": says("<html>"),
    "gateway_timeout": says("<html>"),
    "quota_spent": says("insufficient_quota"),
    "content_policy": says("content_policy_violation"),
    "error_in_200": lambda answer: isinstance(answer.json()["message"], str),
    "field_errors_in_200": lambda answer: isinstance(answer.json()["message"]["prompt"], list),
    "messege_in_200": lambda answer: "messege" in answer.json() and "message" not in answer.json(),
}
SAID = [case for case in cases("instead") if case[1].name not in {"refuse_connection", "redirected_inside"}]
OWN_FORM = {
    "modelslab": says('"status": "error"'),
    "imgprocessing": says('"type": "https://docs.img-processing.com/errors/', '"status": '),
    "realm": says('{"error": {"code": "', '"details": '),
    "openai": says('{"error": {"message": ', '"param": '),
}


@pytest.mark.parametrize(("vendor", "mood"), SAID, ids=str)
def test_the_vendor_does_nothing_and_says_so_in_its_own_form(vendor: str, mood: Mood) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        order = customer.order()
        fake.script(mood)

        answer = customer.meet(mood.kind, order)

        own_status = 400 if vendor in {"modelslab", "imgprocessing"} else 404  # for a model nobody knows
        assert answer.status_code == STATUS.get(mood.name, own_status)
        assert BODY.get(mood.name, OWN_FORM[vendor])(answer) or mood.kind is Kind.DOWNLOAD
        assert len(fake.charged) == (2 if mood.name == "gateway_timeout" and mood.kind is Kind.SUBMIT else 1)
        assert customer.meet(mood.kind, order).ok


def test_modelslab_says_in_the_body_how_long_to_wait() -> None:
    with upstream("modelslab") as fake:
        fake.script(moods.RETRY_AFTER_ABSENT.lasting(30))

        assert Customer(fake).order().json()["retry_after"] == 30


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_picture_can_be_gone_in_three_ways(status: int) -> None:
    with upstream("realm") as fake:
        customer = Customer(fake)
        fake.script(moods.EXPIRED.with_status(status))

        assert customer.get(customer.urls(customer.order())[0]).status_code == status


@EACH_VENDOR
def test_a_redirect_of_a_picture_leads_to_it_or_inside(vendor: str) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        order = customer.order()
        fake.script(moods.REDIRECTED, moods.REDIRECTED_INSIDE)

        ((followed, _),) = customer.fetch(order)
        assert fake.trespasses == []
        assert shows(opened(followed), PROMPT, seed=fake.charged[0].seed)
        customer.fetch(order)
        assert len(fake.trespasses) == 1


@pytest.mark.parametrize("kind", [Kind.SUBMIT, Kind.POLL])
def test_a_redirect_leads_a_trusting_customer_and_his_key_elsewhere(kind: Kind) -> None:
    with upstream("modelslab") as fake:
        order = Customer(fake).order()
        fake.script(moods.REDIRECTED_INSIDE.on(kind))

        Customer(fake).meet(kind, order)

        assert fake.trespasses[0].body["key"] == fake.key


@EACH_VENDOR
def test_nobody_listens_while_it_is_down_and_it_comes_back_on_its_port(vendor: str) -> None:
    with upstream(vendor) as fake:
        customer, url = Customer(fake), fake.base_url
        with requests.Session() as session:
            session.get(url, timeout=5)  # a connection that is kept is cut too
            fake.always(moods.REFUSE_CONNECTION)
            with pytest.raises(requests.ConnectionError):
                session.get(url, timeout=5)
        with pytest.raises(requests.ConnectionError):
            customer.order()
        fake.calm()
        assert customer.order().ok

        fake.script(moods.REFUSE_CONNECTION.lasting(0.3))
        with pytest.raises(requests.ConnectionError):
            customer.order()
        eventually(lambda: answered(customer), within=2)
        assert fake.base_url == url


def answered(customer: Customer) -> bool:
    with suppress(requests.ConnectionError):
        return customer.order().ok
    return False
