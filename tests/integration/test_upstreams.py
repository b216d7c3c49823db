"""A paid call's life, on a real database and a fake vendor: what it costs, and who learns what of it.

What every adapter promises whatever its vendor does is in tests/contracts/test_upstreams.py.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest

from app import safe_http
from app.db import Database
from app.db.tables import metadata
from app.domain.catalog import Catalog, shelf
from app.errors import (
    ContentRefused,
    Deferred,
    Draining,
    ProviderBusy,
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderRefused,
    UpstreamAmbiguous,
)
from app.settings import Settings
from tests import rows, upstreams
from tests.upstreams import Kind, moods, shows
from tests.upstreams.desk import have_claimed
from workers.providers.base import Attempt, Inputs, Picture
from workers.providers.upstream import UpstreamProvider

MODELS = {"modelslab": "v6/realtime", "openai": "painter", "realm": "mod_landscape"}
PREFIX = {"modelslab": "/api", "openai": "/v1", "realm": "/v1"}


@dataclass
class Office:
    """One worker's provider for one account, and what it is asked."""

    fake: upstreams.Upstream
    provider: UpstreamProvider
    database: Database
    vendor: str
    job_id: UUID = field(default_factory=uuid4)
    warnings: list[str] = field(default_factory=list)
    attempts: int = 0

    def draw(
        self,
        number: int = 1,
        *,
        check: Any = lambda: None,
        model_there: str | None = None,
        **changes: Any,
    ) -> list[Picture]:
        have_claimed(self.database, self.job_id, number)
        spec = rows.make_spec(**{"model": "m", "width": 96, "height": 64, "seed": 5, **changes})
        attempt = Attempt(
            check=check,
            progress=lambda _share: None,
            warn=self.warnings.append,
            model=model_there or MODELS[self.vendor],
            job_id=self.job_id,
            number=number,
        )
        return list(self.provider.generate(spec, Inputs(), attempt))

    def fails(self, number: int = 1, **changes: Any) -> ProviderError:
        with pytest.raises(ProviderError) as refusal:
            self.draw(number, **changes)
        return refusal.value

    def draw_or_fail(self) -> list[Picture]:
        """The pictures of the job's next attempt; none where it failed and is to be repeated."""
        self.attempts += 1
        assert self.attempts <= 4
        try:
            return self.draw(self.attempts)
        except ProviderDown:
            return []

    def states(self) -> list[str]:
        return [
            row.state
            for row in rows.query(
                self.database,
                "SELECT state FROM upstream_calls WHERE job_id = %(id)s ORDER BY created_at, id",
                id=self.job_id,
            )
        ]

    def state(self) -> rows.Look:
        return rows.query(self.database, "SELECT * FROM provider_state")[0]


def open_office(
    fake: upstreams.Upstream,
    database: Database,
    settings: Settings,
    *,
    target: dict[str, Any] | None = None,
    base_url: str | None = None,
    **account: Any,
) -> Office:
    vendor = fake.vendor
    entry = {
        "name": "The vendor's",
        "id": "m",
        "created_at": "2026-11-25T00:00:00Z",
        "operations": ["text_to_image", "image_to_image", "inpaint"],
        "width": 96,
        "height": 64,
        "size": {"min": 16, "max": 1024, "max_pixels": 1048576},
        "max_images": 8,
        "defaults": {"num_inference_steps": 2, "guidance_scale": 7.5, "strength": 0.7},
        "targets": [
            {"provider": "vendor", "model": MODELS[vendor], "cost_per_image": "0.01", **(target or {})}
        ],
    }
    about = {
        "name": "vendor",
        "api": vendor,
        "base_url": base_url or fake.base_url + PREFIX[vendor],
        "timeout": 0.6,
        "longest_wait": 3.0,
        **account,
    }
    catalog = Catalog.model_validate({"models": [entry], "upstreams": [about]})
    provider = UpstreamProvider(
        upstream=catalog.upstreams[0],
        catalog=catalog,
        key=fake.key,
        database=database,
        guard=safe_http.for_upstreams(settings, host=urlsplit(about["base_url"]).netloc),
    )
    return Office(fake, provider, database, vendor)


@pytest.fixture
def modelslab() -> Iterator[upstreams.Upstream]:
    with upstreams.upstream("modelslab") as fake:
        yield fake


@pytest.fixture
def openai() -> Iterator[upstreams.Upstream]:
    with upstreams.upstream("openai") as fake:
        yield fake


# --- a call that was taken is paid once ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "trouble"),
    [
        # Its errors look like a failed job's, but for the status.
        ("modelslab", moods.RETRY_AFTER_SECONDS.on(Kind.POLL)),
        ("modelslab", moods.BAD_KEY.on(Kind.POLL)),
        ("realm", moods.CUT.on(Kind.POLL)),
        ("realm", moods.TRUNCATED_IMAGE.on(Kind.DOWNLOAD)),
    ],
    ids=str,
)
def test_trouble_after_the_vendor_named_the_call_never_buys_it_again(
    database: Database, settings: Settings, vendor: str, trouble: moods.Mood
) -> None:
    with upstreams.upstream(vendor) as fake:
        office = open_office(fake, database, settings)
        fake.script(trouble)

        while not (pictures := office.draw_or_fail()):
            pass

        assert len(pictures) == 1
        assert not fake.unused()
        assert len(fake.charged) == 1
        assert office.states() == ["completed"]


def test_a_drained_job_goes_on_where_it_was(
    modelslab: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    office = open_office(modelslab, database, settings)
    modelslab.script(moods.STUCK)

    def check() -> None:
        if modelslab.polls:
            raise Draining

    with pytest.raises(Draining):
        office.draw(check=check)
    assert office.states() == ["accepted"]
    modelslab.finish_all()

    assert len(office.draw(2)) == 1
    assert len(modelslab.charged) == 1


# --- a call that brought nothing ----------------------------------------------------------------------------


def test_a_repeated_call_after_one_that_failed_is_not_answered_with_the_failure(
    database: Database, settings: Settings
) -> None:
    with upstreams.upstream("realm") as fake:
        fake.honours_idempotency = True
        office = open_office(fake, database, settings, idempotent=True)
        fake.script(moods.FAILED)
        office.fails()

        assert len(office.draw(2)) == 1


def test_an_idempotent_call_that_is_repeated_after_it_completed_costs_once(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    openai.honours_idempotency = True
    office = open_office(openai, database, settings, idempotent=True)

    office.draw()
    office.draw(2)  # as after a death between the call's end and the job's

    assert len(openai.charged) == 1
    (spent,) = rows.query(database, "SELECT sum(cost) AS cost, count(*) AS calls FROM upstream_calls")
    assert (str(spent.cost), spent.calls) == ("0.010000", 2)


def test_an_idempotent_call_that_was_repeated_leaves_no_open_row(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    openai.honours_idempotency = True
    office = open_office(openai, database, settings, idempotent=True)
    openai.script(moods.RESET)
    office.fails()

    office.draw(2)

    assert len(openai.charged) == 1
    assert "sending" not in office.states()
    (cost,) = rows.query(database, "SELECT sum(cost) AS cost FROM upstream_calls")
    assert str(cost.cost) == "0.010000"


def test_a_picture_that_the_vendor_withholds_is_not_delivered_blank(
    modelslab: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    office = open_office(modelslab, database, settings)
    modelslab.script(moods.UNSAFE)

    error = office.fails()

    assert isinstance(error, ContentRefused)
    assert not error.retryable
    assert office.states() == ["failed"]


def test_a_catalogue_with_another_number_of_images_per_call_still_resumes(
    database: Database, settings: Settings
) -> None:
    with upstreams.upstream("realm") as fake:
        before = open_office(fake, database, settings)
        fake.script(moods.SERVER_ERROR.on(Kind.DOWNLOAD), moods.SERVER_ERROR.on(Kind.DOWNLOAD))
        before.fails(num_images=2)
        fake.calm()
        narrow = {"capability": {"images_per_call": 1, "honours": ["guidance_scale", "strength"]}}
        after = replace(open_office(fake, database, settings, target=narrow), job_id=before.job_id)

        assert len(after.draw(2, num_images=2)) == 2
        assert sum(charge.images for charge in fake.charged) == 2


# --- an answer that got lost --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [502, 524])
def test_a_gateway_that_answers_in_the_vendors_place_leaves_the_call_ambiguous(
    openai: upstreams.Upstream, database: Database, settings: Settings, status: int
) -> None:
    with gateway(status) as url:
        office = open_office(openai, database, settings, ambiguous="fail", base_url=url)
        office.fails()

    assert office.states() == ["sending"]
    assert isinstance(office.fails(2), UpstreamAmbiguous)


def test_a_host_without_the_right_certificate_was_sent_nothing(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    url = openai.base_url.replace("http://", "https://") + "/v1"
    office = open_office(openai, database, settings, ambiguous="fail", base_url=url)

    assert isinstance(office.fails(), ProviderDown)

    assert office.states() == ["refused"]


def test_headers_that_drip_end_in_time(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    drip = _Server(b"HTTP/1.1 200 OK\r\n" + b"X-Drip: 1\r\n" * 90, pause=0.05)
    with drip as url:
        office = open_office(openai, database, settings, base_url=url)
        started = time.monotonic()
        assert isinstance(office.fails(), ProviderDown)

    assert time.monotonic() - started < 2
    assert office.states() == ["sending"]


# --- limits and breakers shared by all processes ------------------------------------------------------------


def test_two_workers_share_one_rate(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    first, second = (open_office(openai, database, settings, calls_per_minute=2) for _ in range(2))

    first.draw()

    assert isinstance(second.fails(), Deferred)
    assert len(openai.charged) == 1


def test_a_job_that_would_wait_for_long_goes_back_to_the_queue_uncharged(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    office = open_office(openai, database, settings, calls_per_minute=2)
    office.draw()
    office.job_id = uuid4()

    error = office.fails()

    assert isinstance(error, Deferred)
    assert not error.charged
    assert error.retry_after is not None
    assert timedelta(seconds=20) < error.retry_after <= timedelta(seconds=30)
    assert office.states() == []
    assert len(openai.submits) == 1


def test_a_date_in_retry_after_is_honoured_by_every_worker(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    first, second = (open_office(openai, database, settings) for _ in range(2))
    openai.script(moods.RETRY_AFTER_DATE.lasting(30))

    error = first.fails()

    assert isinstance(error, ProviderBusy)
    assert error.retry_after is not None
    assert timedelta(seconds=25) < error.retry_after <= timedelta(seconds=31)
    assert isinstance(second.fails(), Deferred)
    assert len(openai.submits) == 1


def test_no_credit_and_a_spent_quota_open_the_breaker_at_once(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    for mood in (moods.NO_CREDIT, moods.QUOTA_SPENT):
        rows.execute(database, "UPDATE provider_state SET failures = 0, opened_until = NULL")
        office = open_office(openai, database, settings)
        openai.script(mood)

        error = office.fails()

        assert isinstance(error, ProviderDenied)
        assert not error.charged
        assert office.state().opened_until is not None


def test_a_missing_key_is_the_operators_to_mend_and_not_the_jobs_fault(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    office = open_office(openai, database, settings)
    office.provider = UpstreamProvider(
        upstream=office.provider._account,
        catalog=office.provider._catalog,
        key=None,
        database=database,
        guard=safe_http.for_upstreams(settings, host=urlsplit(openai.base_url).netloc),
    )

    error = office.fails()

    assert isinstance(error, ProviderDenied)
    assert not error.charged
    assert office.state().opened_until is not None
    assert "DARKROOM_UPSTREAM_KEYS" in office.state().reason
    assert not openai.calls


# --- what is said is so -------------------------------------------------------------------------------------


def test_what_a_target_honours_is_sent(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    honours = {"capability": {"honours": ["seed", "negative_prompt"], "images_per_call": 1}}
    office = open_office(openai, database, settings, target=honours)

    first, second = office.draw(num_images=2, negative_prompt="fog")

    body = openai.submits[0].body
    assert (body["seed"], body["negative_prompt"]) == (5, "fog")
    assert openai.submits[1].body["seed"] == 6
    assert (first.seed, second.seed) == (5, 6)
    assert shows(second.image, "a red hill under stars", seed=6)
    assert not any("seed" in sentence for sentence in office.warnings)


def test_what_a_target_does_not_honour_is_neither_sent_nor_passed_over(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    office = open_office(openai, database, settings)

    office.draw()

    assert "seed" not in openai.submits[0].body
    assert "seed has no effect: the provider does not take it" in office.warnings


def test_a_picture_that_is_a_little_too_large_is_resampled_and_told(
    openai: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    office = open_office(openai, database, settings)
    openai.script(moods.SLIGHTLY_WRONG_SIZE)

    (picture,) = office.draw(width=640, height=640)

    assert picture.image.size == (640, 640)
    assert any("648 × 640" in sentence and "640 × 640" in sentence for sentence in office.warnings)


def test_a_vendors_word_about_a_parameter_is_not_taken_for_a_refusal_of_content(
    modelslab: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    told = "The safety checker field must be true or false."

    with answering(200, {"status": "error", "message": {"safety_checker": [told]}}) as url:
        office = open_office(modelslab, database, settings, base_url=url)
        error = office.fails()

    assert isinstance(error, ProviderRefused)
    assert not isinstance(error, ContentRefused)


def test_a_checker_at_the_vendors_runs_where_the_job_asks_for_one(
    modelslab: upstreams.Upstream, database: Database, settings: Settings
) -> None:
    office = open_office(modelslab, database, settings)

    office.draw(safety_checker=True)
    office.job_id = uuid4()
    office.draw()

    assert [call.body["safety_checker"] for call in modelslab.submits] == [True, False]


def test_what_stands_on_the_shelf_is_where_the_vendor_has_it(
    database: Database, settings: Settings, modelslab: upstreams.Upstream
) -> None:
    entry = next(model for model in shelf().models if model.id == "modelslab-realtime")
    office = open_office(modelslab, database, settings, target={"model": entry.targets[0].model})

    assert len(office.draw(model_there=entry.targets[0].model)) == 1


# --- secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", ["modelslab", "openai"])
def test_a_key_is_nowhere(
    vendor: str, database: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors = []
    with upstreams.upstream(vendor) as fake:
        for mood in (moods.RESET, moods.GARBAGE, moods.BAD_KEY, moods.SERVER_ERROR):
            office = open_office(fake, database, settings)
            fake.script(mood)
            errors.append(office.fails())
        echo = {"status": "error", "message": f"Invalid API key {fake.key}\x1b[31m", "error": f"{fake.key}"}
        with answering(401, echo) as url:
            office = open_office(fake, database, settings, base_url=url)
            errors.append(office.fails())
        with answering(422, echo) as url:
            office = open_office(fake, database, settings, base_url=url)
            errors.append(office.fails())
            assert "\x1b" not in errors[-1].message

    said = [part for error in errors for part in chain(error)]
    kept = [
        str(row.columns)
        for table in metadata.sorted_tables
        for row in rows.query(database, f"SELECT * FROM {table.name}")
    ]
    for text in (*said, *kept, caplog.text):
        assert fake.key not in text


def chain(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield repr(error)
        yield repr(vars(error))
        error = error.__cause__ or error.__context__


# --- servers that misbehave below HTTP ----------------------------------------------------------------------


class _Server:
    """Answers every connection with fixed bytes, at once or byte by byte."""

    def __init__(self, answer: bytes, *, pause: float = 0.0, whole: bool = True) -> None:
        self._answer, self._pause, self._whole = answer, pause, whole
        self._leaving = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _run(self) -> None:
        while not self._leaving.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._read(connection)
            if not self._pause:
                connection.sendall(self._answer)
                return
            for byte in self._answer:
                connection.sendall(bytes((byte,)))
                if self._leaving.wait(self._pause):
                    return
        except OSError:
            return

    def _read(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(65536)


def gateway(status: int) -> _Server:
    return _Server(_answer(status, "text/html", b"<html>Gateway</html>"))


def answering(status: int, body: dict[str, Any]) -> _Server:
    return _Server(_answer(status, "application/json", json.dumps(body).encode()))


def _answer(status: int, media_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} Said",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        "",
    )
    return "\r\n".join(head).encode() + body
