"""A web process that is asked to end while clients hold event streams open."""

import signal
from pathlib import Path

from app.db import Database
from app.settings import Settings
from tests import rows
from tests.conftest import Account
from tests.servers.processes import Processes
from tests.sse import Stream
from tests.waiting import eventually


def test_an_open_stream_does_not_hold_up_the_end_of_a_web_process(
    settings: Settings, database: Database, account: Account, tmp_path: Path
) -> None:
    job_id = rows.insert_job(database, account.id)
    rows.execute(
        database,
        "INSERT INTO job_events (job_id, to_status, attempt, reason) "
        "VALUES (%(id)s, 'queued', 0, 'submitted')",
        id=job_id,
    )
    with Processes(settings, logs=tmp_path) as processes:
        process, url = processes.web()
        processes.await_web(url)
        port = int(url.rpartition(":")[2])
        stream = Stream.open(port, f"/v1/jobs/job_{job_id.hex}/events", account)
        events = stream.events()
        assert next(events).kind == "queued"

        process.send(signal.SIGTERM)

        assert [event.kind for event in events if event.kind != "queued"] == []
        # The server's own grace is 25 s.
        eventually(lambda: not process.alive, within=8, told=process.last_words)
        assert process.exit_status() == 0
        stream.close()
