"""Event streams and waits on the real web program: order, replay, places, and what they cost in Postgres."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import requests

from app.db import Database
from app.errors import ProviderDown
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.drawing import announce, drawing
from tests.paced import Paced
from tests.servers.processes import Process, Processes
from tests.sse import Stream
from tests.submitter import JOBS
from tests.waiting import eventually

PLACES = 48
"""Three quarters of the 64 threads."""
SHARE = 24
"""Half of them, as many as one account may have."""
POOL = 8
"""Most connections of a web process beside the one that listens."""
MOMENT = timedelta(seconds=1.5)
RUNNING: dict[str, Any] = {
    "status": "processing",
    "attempt": 1,
    "started_at": "now()",
    "lease_owner": "host:1:0",
    "lease_until": "now() + interval '5 minutes'",
    "deadline_at": "now() + interval '5 minutes'",
}


END = """
WITH ended AS (
    UPDATE jobs SET status = 'cancelled', finished_at = now(), lease_owner = NULL, lease_until = NULL,
        deadline_at = NULL WHERE finished_at IS NULL RETURNING id, attempt
), event AS (
    INSERT INTO job_events (job_id, to_status, attempt, reason)
    SELECT id, 'cancelled', attempt, 'cancelled' FROM ended
)
SELECT pg_notify('darkroom_progress', '') FROM ended
"""
"""Ends every job at once, as a worker would end its own."""


@dataclass
class Server:
    """A web process of its own."""

    process: Process
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@dataclass
class Client:
    """An account that talks to it."""

    server: Server
    account: Account
    database: Database
    streams: list[Stream]

    def submit(self, **body: Any) -> dict[str, Any]:
        answer = self.ask("POST", JOBS, json={"prompt": "a hill", "width": 16, "height": 16, **body})
        assert answer.status_code == 202, answer.text
        return self.of(answer)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {**self.account.headers, **options.pop("headers", {})}
        return requests.request(method, f"{self.server.url}{path}", headers=headers, timeout=60, **options)

    @staticmethod
    def of(answer: requests.Response) -> dict[str, Any]:
        content = answer.json()
        assert isinstance(content, dict)
        return content

    def watch(self, job_id: str, account: Account | None = None, **options: Any) -> Stream:
        """A stream, which is closed with the test at the latest."""
        path = f"{JOBS}/{job_id}/events"
        stream = Stream.open(self.server.port, path, account or self.account, **options)
        self.streams.append(stream)
        return stream

    def end_all(self) -> None:
        """End every job and read every stream to its end, so that the next test finds all places free."""
        rows.execute(self.database, END)
        for stream in self.streams:
            if not stream.answer.closed:
                list(stream.events())
            stream.close()

    def connections(self) -> dict[str, int]:
        """Connections to Postgres by what they call themselves, those of the web process and of listeners."""
        found = rows.query(
            self.database,
            "SELECT application_name AS name, count(*) AS number FROM pg_stat_activity "
            "WHERE application_name IN ('darkroom web', 'darkroom listen') GROUP BY 1",
        )
        return {row.name: row.number for row in found}

    def running_job(self) -> UUID:
        """A job that somebody far away runs."""
        job_id = rows.insert_job(self.database, self.account.id, **RUNNING)
        rows.execute(
            self.database,
            "INSERT INTO job_events (job_id, to_status, attempt, reason) VALUES "
            "(%(id)s, 'queued', 0, 'submitted'), (%(id)s, 'processing', 1, 'claimed')",
            id=job_id,
        )
        return job_id


@pytest.fixture(scope="module")
def server(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    logs = tmp_path_factory.mktemp("web")
    settings = base_settings.model_copy(update={"rate_limit_per_minute": 100_000, "web_threads": 64})
    with Processes(settings, logs=logs) as processes:
        process, url = processes.web()
        processes.await_web(url)
        yield Server(process, url)
        assert process.alive, process.last_words()
        for log in logs.iterdir():
            assert "Traceback" not in log.read_text()


@pytest.fixture
def client(server: Server, account: Account, database: Database) -> Iterator[Client]:
    made = Client(server, account, database, [])
    yield made
    made.end_all()


@pytest.fixture
def other(server: Server, stranger: Account, database: Database) -> Iterator[Client]:
    made = Client(server, stranger, database, [])
    yield made
    made.end_all()


@pytest.fixture
def brisk(settings: Settings) -> Settings:
    """Settings of a worker that writes progress down twenty times a second."""
    return settings.model_copy(update={"progress_every": timedelta(seconds=0.05)})


def test_a_job_is_told_from_its_first_place_in_the_queue_to_its_outputs(
    client: Client, brisk: Settings, database: Database, storage: Storage
) -> None:
    painter = Paced(steps=4)
    announce(database)
    job_id = client.submit()["id"]
    # The web process believes for up to two seconds that nobody works.
    eventually(
        lambda: client.of(client.ask("GET", f"{JOBS}/{job_id}"))["estimated_completion"] is not None,
        within=10,
    )
    stream = client.watch(job_id)
    told = stream.until("queued")
    with drawing(brisk, database, storage, provider=lambda _: painter):
        told += stream.until("stage", stage="loading")
        for step in range(1, 4):
            painter.step()
            told += stream.until("progress", step=step)
        painter.step()
        told += list(stream.events())

    kinds = [event.kind for event in told]
    assert kinds[:3] == ["queued", "processing", "stage"]
    assert kinds[-1] == "completed"
    # A look between the provider's two calls can tell the share alone.
    steps = [event.data for event in told if event.kind == "progress" and "step" in event.data]
    assert [data["step"] for data in steps][:3] == [1, 2, 3]
    assert [event.data["stage"] for event in told if event.kind == "stage"][:2] == ["loading", "generating"]
    queued, processing, completed = told[0].data, told[1].data, told[-1].data
    assert (queued["position"], queued["reason"], queued["attempt"]) == (1, "submitted", 0)
    assert queued["estimated_completion"] > queued["at"]
    assert (processing["reason"], processing["attempt"]) == ("claimed", 1)
    assert all(data["steps"] == 4 for data in steps)
    assert completed["job"] == client.of(client.ask("GET", f"{JOBS}/{job_id}"))
    assert requests.get(completed["job"]["outputs"][0]["url"], timeout=10).status_code == 200
    assert stream.retry == 2000


def test_the_headers_let_nobody_on_the_way_keep_or_hold_back_anything(client: Client) -> None:
    stream = client.watch(client.submit()["id"])

    assert stream.status == 200
    assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
    assert stream.answer.headers["Cache-Control"] == "no-store"
    assert stream.answer.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in stream.answer.headers
    stream.close()


def test_who_comes_back_gets_the_transitions_that_he_missed_and_only_those(
    client: Client, brisk: Settings, database: Database, storage: Storage
) -> None:
    painter = Paced(steps=1)
    painter.fails = [ProviderDown("http://10.0.0.9 is away")]
    job_id = client.submit()["id"]
    with drawing(brisk, database, storage, provider=lambda _: painter):
        stream = client.watch(job_id)
        before = stream.until("processing")
        stream.close()
        painter.run_on()
        client.ask("GET", f"{JOBS}/{job_id}?wait=30")
        last_id = before[-1].id
        again = list(client.watch(job_id, last_id=last_id).events())
        whole = list(client.watch(job_id).events())

    assert [(event.kind, event.data["reason"]) for event in again] == [
        ("queued", "retry"),
        ("processing", "claimed"),
        ("completed", "completed"),
    ]
    assert again[0].data["error_code"] == "provider_unavailable"
    assert again[0].data["delay_seconds"] >= 0
    assert [event.data["attempt"] for event in again] == [1, 2, 2]
    assert [(event.kind, event.id) for event in whole] == [
        (event.kind, event.id) for event in (*before[:2], *again)
    ]
    assert int(last_id) < int(again[0].id) < int(again[-1].id)


def test_a_finished_job_is_told_once_more_and_then_204_keeps_a_browser_from_coming_back(
    client: Client,
) -> None:
    job_id = client.submit()["id"]
    client.ask("DELETE", f"{JOBS}/{job_id}")

    first = client.watch(job_id)
    events = list(first.events())
    by_header = client.watch(job_id, last_id=events[-1].id)
    by_query = client.ask("GET", f"{JOBS}/{job_id}/events?last_event_id={events[-1].id}")

    assert [event.kind for event in events] == ["queued", "cancelled"]
    assert events[1].data["error"]["code"] == "cancelled"
    assert events[1].data["job"]["status"] == "cancelled"
    assert (by_header.status, by_header.answer.read()) == (204, b"")
    assert by_query.status_code == 204


@pytest.mark.parametrize("given", ["abc", "-1", "1.5", "9" * 19])
def test_a_last_event_id_that_is_none_is_refused(given: str, client: Client) -> None:
    path = f"{JOBS}/{client.submit()['id']}/events"

    answers = [
        client.ask("GET", path, params={"last_event_id": given}),
        client.ask("GET", path, headers={"Last-Event-ID": given}),
    ]

    for answer in answers:
        assert answer.status_code == 422
        assert answer.json()["error"]["details"][0]["field"] == "Last-Event-ID"


def test_a_place_in_the_queue_is_told_again_when_it_changes_and_is_no_transition(client: Client) -> None:
    ahead = client.submit()["id"]
    stream = client.watch(client.submit()["id"])
    first = stream.until("queued")[0]

    client.ask("DELETE", f"{JOBS}/{ahead}")
    second = stream.until("queued")[0]

    assert (first.data["position"], second.data["position"]) == (2, 1)
    assert second.id == first.id
    assert "at" not in second.data
    stream.close()


def test_head_holds_no_place_and_strangers_see_nothing(client: Client, stranger: Account) -> None:
    job_id = client.submit()["id"]

    head = client.ask("HEAD", f"{JOBS}/{job_id}/events")
    other = client.watch(job_id, stranger)
    nobody = requests.get(f"{client.server.url}{JOBS}/{job_id}/events", timeout=10)

    assert (head.status_code, head.headers["Content-Type"][:17]) == (200, "text/event-stream")
    assert (other.status, nobody.status_code) == (404, 401)


def test_forty_streams_cost_as_many_connections_as_one(client: Client, other: Client) -> None:
    """And they all hear of the end of their jobs."""
    jobs = [(who, who.submit()["id"]) for who in (client, other) for _ in range(20)]
    streams = []
    with_one = None
    for who, job_id in jobs:
        streams.append(who.watch(job_id))
        streams[-1].until("queued")
        with_one = with_one or client.connections()
    with_forty = client.connections()
    for who, job_id in jobs:
        who.ask("DELETE", f"{JOBS}/{job_id}")
    ends = [list(stream.events())[-1].kind for stream in streams]

    assert with_one is not None
    assert with_one["darkroom listen"] == with_forty["darkroom listen"] == 1
    assert with_forty["darkroom web"] <= POOL
    assert ends == ["cancelled"] * 40


def test_beyond_the_places_a_stream_is_503_the_door_answers_and_who_leaves_makes_room(
    client: Client, other: Client
) -> None:
    job_id = client.running_job()
    shown_id = f"job_{job_id.hex}"
    # The test before has left, and the server may hear of it a moment after its clients did.
    streams = [let_in(client, shown_id) for _ in range(SHARE)]
    shown_others = f"job_{other.running_job().hex}"
    streams += [let_in(other, shown_others) for _ in range(SHARE)]

    refused = client.watch(shown_id)
    began = time.monotonic()
    submitted = client.ask("POST", JOBS, json={"prompt": "a hill"}, headers={"Prefer": "wait=30"})
    read = client.ask("GET", f"{JOBS}/{shown_id}?wait=30")
    took = time.monotonic() - began

    assert refused.status == 503
    assert int(refused.answer.headers["Retry-After"]) >= 1
    assert refused.answer.headers["Content-Type"] == "application/json"
    assert (submitted.status_code, read.status_code) == (202, 200)
    assert took < 5

    streams[0].close()

    def gets_in() -> Stream | None:
        get_on(client.database, job_id)
        late = client.watch(shown_id)
        return late if late.status == 200 else None

    late = eventually(gets_in, within=20)
    assert late is not None
    rows.execute(client.database, END)
    ends = [list(stream.events())[-1].kind for stream in (*streams[1:], late)]
    assert ends == ["cancelled"] * PLACES


def test_all_places_are_free_again_when_the_streams_have_ended(client: Client) -> None:
    for _ in range(2):
        job_id = client.submit()["id"]
        streams = [client.watch(job_id) for _ in range(SHARE)]
        refused = client.watch(job_id)
        client.ask("DELETE", f"{JOBS}/{job_id}")

        assert [stream.status for stream in streams] == [200] * SHARE
        assert refused.status == 503
        assert [list(stream.events())[-1].kind for stream in streams] == ["cancelled"] * SHARE


def test_who_holds_all_places_of_an_account_keeps_no_other_account_from_waiting(
    client: Client, other: Client
) -> None:
    mine, theirs = client.submit()["id"], other.submit()["id"]
    streams = [client.watch(mine) for _ in range(SHARE)]

    refused = client.watch(mine)
    told = other.watch(theirs)
    waited = other.ask("GET", f"{JOBS}/{theirs}", headers={"Prefer": "wait=1"})

    assert [stream.status for stream in streams] == [200] * SHARE
    assert (refused.status, told.status) == (503, 200)
    assert told.until("queued")
    assert waited.headers["Preference-Applied"] == "wait=1"


def let_in(client: Client, job_id: str) -> Stream:
    """A stream that has a place, which may take a moment to become free."""

    def tried() -> Stream | None:
        stream = client.watch(job_id)
        return stream if stream.status == 200 else None

    found = eventually(tried, within=20)
    assert found is not None
    return found


def get_on(database: Database, job_id: UUID) -> None:
    """Have a running job make progress, of which every stream of it is told."""
    rows.execute(
        database,
        "UPDATE jobs SET progress = 0.1 + random() * 0.8 WHERE id = %(id)s",
        id=job_id,
    )
    rows.execute(database, "SELECT pg_notify('darkroom_progress', '')")


def test_a_stream_outlives_the_connections_to_postgres(client: Client) -> None:
    job_id = client.submit()["id"]
    stream = client.watch(job_id)
    told = stream.until("queued")
    rows.execute(
        client.database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name IN ('darkroom web', 'darkroom listen')",
    )

    answer = eventually(lambda: cancelled(client, job_id), within=20)
    told += list(stream.events())

    assert answer
    assert [event.kind for event in told] == ["queued", "cancelled"]


def cancelled(client: Client, job_id: str) -> bool:
    return client.ask("DELETE", f"{JOBS}/{job_id}").status_code == 200


def waited_for(client: Client, job_id: str) -> requests.Response:
    """Wait for a job, and come back where the place was somebody else's at that moment."""
    while True:
        answer = client.ask("GET", f"{JOBS}/{job_id}?wait=50")
        if client.of(answer).get("status") not in {None, "queued"}:
            return answer


def is_full(client: Client, job_id: str) -> bool:
    """Whether there is no place left; the one this took to find out is free again."""
    probe = client.watch(job_id)
    if probe.status != 503:
        probe.close()
    return probe.status == 503


def test_twenty_waits_cost_one_listener_and_end_within_a_moment_of_their_jobs(client: Client) -> None:
    jobs = [client.submit()["id"] for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        waits = [pool.submit(waited_for, client, job_id) for job_id in jobs]
        # As many more as there are places left: then all waits have begun.
        streams = [client.watch(jobs[0]) for _ in range(SHARE - 20)]
        eventually(lambda: is_full(client, jobs[0]), within=20)
        while_waiting = client.connections()
        assert not any(wait.done() for wait in waits)
        for job_id in jobs:
            client.ask("DELETE", f"{JOBS}/{job_id}")
        answers = [client.of(wait.result(timeout=30)) for wait in waits]
        over = datetime.now(UTC)

    assert while_waiting["darkroom listen"] == 1
    assert while_waiting["darkroom web"] <= POOL
    assert [answer["status"] for answer in answers] == ["cancelled"] * 20
    assert over - max(datetime.fromisoformat(answer["finished_at"]) for answer in answers) < MOMENT
    assert {list(stream.events())[-1].kind for stream in streams} == {"cancelled"}
