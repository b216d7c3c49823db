"""One account's requests, or nobody's, against everybody else: time, memory and threads of a web process."""

import base64
import gc
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Protocol
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import web
from app.api.ratelimit import Streams
from app.api.strict import unknown_members
from app.db import Database
from app.errors import Busy
from app.settings import Settings
from app.storage import Storage
from app.waits import Waits
from app.wish import Upload
from tests import realtime, rows
from tests.conftest import Account
from tests.drawing import announce
from tests.factories import file_part, picture
from tests.servers import strangers
from tests.servers.strangers import Stranger, stranger
from tests.shelf import Shelf
from tests.submitter import JOBS, Submitter, problems, shown
from tests.waiting import eventually

PHOTO = base64.b64encode(picture(96, 64)).decode()
DATA_URI = f"data:image/png;base64,{PHOTO}"
EDITS = "/v1/images/edits"
IMG2IMG = f"{realtime.REALTIME}img2img"
MEGABYTE = 1024 * 1024


class Make(Protocol):
    def __call__(self, **changes: Any) -> Flask:
        """An application with some settings changed, on which nothing is drawn."""
        ...


@pytest.fixture
def app_with(settings: Settings, database: Database) -> Iterator[Make]:
    del database  # emptied before the applications start
    with ExitStack() as opened:

        def make(**changes: Any) -> Flask:
            made = web.create_app(settings.model_copy(update=changes))
            opened.callback(web.close, made)
            return made

        yield make


def cost(act: Callable[[], object]) -> float:
    """Seconds of this thread's own time that it takes, however busy the machine is."""
    began = time.thread_time()
    act()
    return time.thread_time() - began


# Time: each of these took from seconds to minutes, with nobody else answered meanwhile


@pytest.mark.parametrize("piece", ["T ", "T 0", "T", "2026-11-21T10:00:00 01 "])
def test_a_time_that_is_none_is_refused_at_once_however_long_it_is(
    piece: str, client: FlaskClient, account: Account
) -> None:
    owner = Submitter(client, account)
    query = {"created_after": piece * (60_000 // len(piece))}

    answers: list[TestResponse] = []
    spent = cost(lambda: answers.append(owner.ask("GET", JOBS, query_string=query)))

    assert set(problems(answers[0])) == {"created_after"}
    assert spent < 1


def test_a_plus_that_became_a_space_is_still_a_time_zone(client: FlaskClient, account: Account) -> None:
    owner = Submitter(client, account)

    for moment in ("2026-11-21T10:00:00 01:00", "20261121T100000 0100", "2026-W47-6T10:00:00.5 01"):
        shown(owner.ask("GET", JOBS, query_string={"created_after": moment}))


def test_a_huge_word_is_compared_by_its_beginning() -> None:
    found: list[Any] = []

    spent = cost(lambda: found.extend(unknown_members(["operation"], ["Operatoin", "a" * 20_000_000])))

    assert found[0].message == "is not known here; did you mean operation?"
    assert spent < 0.3


def test_thousands_of_wrong_entries_are_told_by_the_first_of_them(
    client: FlaskClient, account: Account
) -> None:
    owner = Submitter(client, account)
    body: dict[str, Any] = {"operation": "watermark", "image": DATA_URI, "watermarks": [PHOTO]}
    body["transform"] = {"watermarks": [{}] * 60_000}
    answers: list[TestResponse] = []

    spent = cost(lambda: answers.append(owner.submit(**body)))

    told = problems(answers[0])
    assert 1 <= len(told) <= 50
    assert "transform.watermarks.0.image" in told
    assert spent < 3


def test_line_breaks_in_base64_cost_next_to_nothing(flask: Flask) -> None:
    sources = flask.extensions["darkroom"].sources
    found: list[Upload] = []

    def read(text: str) -> None:
        found.append(sources.named(text, field="image", base_url="", accepted=("PNG",)))

    wrapped = DATA_URI[:60] + "\r\n" * 10_000_000 + DATA_URI[60:]
    spent = cost(lambda: read(wrapped))

    assert [upload.size for upload in found] == [(96, 64)]
    assert spent < 0.5


@pytest.mark.parametrize("path", ["/openapi.json", "/docs/assets/docs.js"])
@pytest.mark.parametrize("since", ["Thu, 01 Jan 99999999999 00:00:00 GMT", "x" * 50_000])
def test_no_date_of_a_stranger_breaks_a_page(path: str, since: str, client: FlaskClient) -> None:
    answer = client.get(path, headers={"If-Modified-Since": since, "If-Range": since})
    known = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})

    assert answer.status_code == 200
    assert (known.status_code, known.data, known.headers["ETag"]) == (304, b"", answer.headers["ETag"])


# Memory


@pytest.mark.parametrize("path", [JOBS, EDITS])
def test_a_large_body_of_small_members_is_refused_before_it_is_unpacked(
    path: str, client: FlaskClient, account: Account
) -> None:
    """30 MB of `{},` were 1.4 GB of objects."""
    crowd = b'{"prompt":"x","image":[' + b"{}," * 200_000 + b"{}]}"

    answer = client.post(path, data=crowd, content_type="application/json", headers=account.headers)

    assert answer.status_code == 413
    assert answer.json is not None
    assert "may hold little but images" in answer.json["error"]["message"]


def test_large_bodies_of_nobody_are_few_at_a_time(app_with: Make, account: Account) -> None:
    """Whoever has his key in the body has sent all of it before he is asked who he is."""
    flask = app_with(web_threads=16, sync_wait=timedelta(0))
    services, client = flask.extensions["darkroom"], flask.test_client()
    small = {"key": account.key, **realtime.body()}
    large = {**small, "ignored": "x" * 300_000}
    text2img = f"{realtime.REALTIME}text2img"

    with services.unnamed_bodies.reading(uuid4()), services.unnamed_bodies.reading(realtime.NOBODY, places=5):
        answers = [client.post(text2img, json=body).status_code for body in (small, large)]
        named = client.post(text2img, json=large, headers=account.headers).status_code

    assert (answers, named) == ([200, 429], 200)
    assert client.post(text2img, json=large).status_code == 200


def ask_jobs(client: FlaskClient, account: Account) -> TestResponse:
    body = {"prompt": "x", "image": DATA_URI}
    return client.post(f"{JOBS}?wait=30", json=body, headers=account.headers)


def ask_edits_in_json(client: FlaskClient, account: Account) -> TestResponse:
    return client.post(EDITS, json={"prompt": "x", "image": DATA_URI}, headers=account.headers)


def ask_edits_in_a_form(client: FlaskClient, account: Account) -> TestResponse:
    body = {"prompt": "x", "image": file_part(picture(96, 64))}
    return client.post(EDITS, data=body, headers=account.headers)


def ask_to_upload(client: FlaskClient, account: Account) -> TestResponse:
    body = {"name": "x", "image": file_part(picture(96, 64))}
    return client.post("/v1/images/upload", data=body, headers=account.headers)


def ask_modelslab(client: FlaskClient, account: Account) -> TestResponse:
    return client.post(IMG2IMG, json={"key": account.key, "prompt": "x", "init_image": DATA_URI})


@pytest.mark.parametrize(
    "ask", [ask_jobs, ask_edits_in_json, ask_edits_in_a_form, ask_to_upload, ask_modelslab]
)
def test_a_request_that_waits_holds_none_of_its_images(
    ask: Callable[[FlaskClient, Account], TestResponse], app_with: Make, account: Account, database: Database
) -> None:
    """It may wait for 55 seconds, with up to 25 MB of images and as much of text that they came in."""
    waiting = {"sync_wait": timedelta(seconds=30), "longest_wait": timedelta(seconds=30)}
    flask = app_with(**waiting)
    services = flask.extensions["darkroom"]

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, flask.test_client(), account)
        job = eventually(lambda: rows.query(database, "SELECT id FROM jobs"), within=20)[0]
        try:
            eventually(lambda: services.waits._waiters, within=20)
            assert services.waits.free == services.waits.most - 1
            gc.collect()
            held = [each for each in gc.get_objects() if type(each) is Upload]
        finally:
            services.intake.cancel(job.id, account_id=account.id)
        asked.result(timeout=30)

    assert held == []


# Threads


def test_one_account_cannot_take_all_threads_by_any_mixture_of_slowness(settings: Settings) -> None:
    services, _ = web.assemble(settings.model_copy(update={"web_threads": 64, "max_waits": None}))

    bodies, waits = services.bodies._places.most, services.waits.most_of_one
    streams = services.streams._shares.most

    assert (bodies, waits, streams) == (16, 24, 16)
    assert bodies + waits + streams < 64


def test_an_account_waits_in_half_of_the_places_at_most(database: Database) -> None:
    waits = Waits(database, most=5)
    one, other = uuid4(), uuid4()

    with ExitStack() as taken:
        for account_id in (one, one, other, other):
            taken.enter_context(waits.place(account_id))
        for account_id in (one, other):
            with pytest.raises(Busy, match="2 requests of this account"), waits.place(account_id):
                pass
        taken.enter_context(waits.place(uuid4()))
        with pytest.raises(Busy, match="5 requests wait"), waits.place(uuid4()):
            pass
        assert waits.free == 0
    assert (waits.free, dict(waits._waiting)) == (5, {})


def test_an_only_place_is_anybodys(database: Database) -> None:
    waits = Waits(database, most=1)

    with waits.place(uuid4()), pytest.raises(Busy), waits.place(uuid4()):
        pass
    with waits.place(uuid4()):
        assert waits.free == 0


def test_streams_of_one_accounts_outputs_leave_half_to_others() -> None:
    streams = Streams(4)
    one, other = uuid4(), uuid4()
    ends = [streams.open(one), streams.open(one)]

    with pytest.raises(Busy):
        streams.open(one)
    ends += [streams.open(other), streams.open(other)]
    with pytest.raises(Busy):
        streams.open(uuid4())

    for end in (*ends, *ends):  # ending twice frees one place
        end()
    for _ in range(2):
        ends.append(streams.open(other))
    with pytest.raises(Busy):
        streams.open(other)


def test_who_does_not_read_his_images_keeps_nobody_elses_from_being_sent(
    app_with: Make, database: Database, storage: Storage, account: Account, stranger: Account
) -> None:
    client = app_with(web_threads=8).test_client()
    mine, _ = Shelf(database, storage, account).put()
    theirs, _ = Shelf(database, storage, stranger).put()

    unread = [client.get(mine, buffered=False) for _ in range(2)]
    refused, sent = client.get(mine), client.get(theirs)
    for answer in unread:
        answer.close()

    assert [answer.status_code for answer in unread] == [200, 200]
    assert (refused.status_code, sent.status_code) == (503, 200)
    assert refused.headers["Retry-After"] == "1"
    assert client.get(mine).status_code == 200


def test_who_searches_his_history_leaves_connections_to_postgres_to_others(
    client: FlaskClient, account: Account, stranger: Account
) -> None:
    searches = client.application.extensions["darkroom"].searches
    mine, theirs = Submitter(client, account), Submitter(client, stranger)
    job_id = mine.made(prompt="a hill")["id"]

    with searches.reading(account.id), searches.reading(account.id):
        refused = mine.ask("GET", f"{JOBS}?provider=nobody")
        found = mine.job(job_id)
        listed = theirs.ask("GET", JOBS)

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert shown(refused, 429)["error"]["message"].startswith("This account already searches its history")
    assert found["id"] == job_id
    assert listed.status_code == 200
    assert mine.ask("GET", f"{JOBS}?provider=nobody").status_code == 200


def by_modelslab(url: str, account: Account) -> dict[str, Any]:
    return {"path": IMG2IMG, "json": {"key": account.key, "prompt": "x", "init_image": url}}


def by_jobs(url: str, account: Account) -> dict[str, Any]:
    return {"path": JOBS, "json": {"prompt": "x", "image": url}, "headers": account.headers}


def by_openai(url: str, account: Account) -> dict[str, Any]:
    return {"path": EDITS, "json": {"prompt": "x", "image": url}, "headers": account.headers}


@pytest.fixture
def silent() -> Iterator[Stranger]:
    """A host that says nothing, and hangs up once it is told to leave."""

    def wait(host: Stranger, _line: socket.socket) -> None:
        host.leaving.wait()

    with stranger(wait) as host:
        yield host


@pytest.mark.parametrize("request_for", [by_modelslab, by_jobs, by_openai])
def test_slow_hosts_of_one_accounts_images_hold_a_quarter_of_the_threads(
    request_for: Callable[[str, Account], dict[str, Any]],
    silent: Stranger,
    app_with: Make,
    account: Account,
    stranger: Account,
) -> None:
    flask = app_with(
        web_threads=8,
        fetch_allow=(strangers.HERE,),
        fetch_timeout=timedelta(seconds=4),
        sync_wait=timedelta(0),
        longest_wait=timedelta(seconds=1),
    )

    def send(who: Account) -> TestResponse:
        return flask.test_client().post(**request_for(f"{silent.url}/a.png", who))

    with ThreadPoolExecutor(4) as pool:
        slow: list[Future[TestResponse]] = [pool.submit(send, account) for _ in range(2)]
        eventually(lambda: len(silent.requests) == 2, within=20)
        refused = send(account)
        others = pool.submit(send, stranger)
        eventually(lambda: len(silent.requests) == 3, within=20)
        silent.leaving.set()
        told = [each.result(timeout=30).status_code for each in (*slow, others)]

    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert set(told) <= {400, 422}


@pytest.mark.parametrize("request_for", [by_modelslab, by_jobs, by_openai])
def test_an_image_whose_host_says_nothing_is_told_as_the_callers_fault_in_time(
    request_for: Callable[[str, Account], dict[str, Any]], app_with: Make, account: Account
) -> None:
    client = app_with(fetch_allow=(strangers.HERE,), fetch_timeout=timedelta(seconds=0.5)).test_client()
    with stranger(strangers.silence) as host:
        began = time.monotonic()
        answer = client.post(**request_for(f"{host.url}/a.png", account))

    assert answer.status_code in {400, 422}, answer.text
    assert time.monotonic() - began < 3
    assert len(host.requests) == 1


# Estimates


def test_without_a_worker_nobody_says_when_a_job_is_done(
    client: FlaskClient, account: Account, database: Database
) -> None:
    owner = Submitter(client, account)
    submitted = owner.submit(prompt="a hill")
    job = shown(submitted, 202)
    stream = owner.ask("GET", f"{JOBS}/{job['id']}/events", buffered=False)
    first = b"".join(itertools.islice(stream.iter_encoded(), 2))
    stream.close()
    realm = client.post(
        "/v1/images/generate", json={"modelId": "sketch", "prompt": "x"}, headers=account.headers
    )

    assert (job["position"], job["estimated_completion"]) == (1, None)
    assert submitted.headers["Retry-After"] == "60"
    assert owner.job(job["id"])["estimated_completion"] is None
    assert b'"position":1' in first
    assert b"estimated_completion" not in first
    assert shown(realm, 202)["estimatedCompletion"]

    announce(database)
    services = client.application.extensions["darkroom"]
    services.intake.forecast._until = 0.0
    assert owner.job(job["id"])["estimated_completion"] > job["created_at"]
