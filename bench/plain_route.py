"""The baseline of the door: a Flask route that writes one row and does nothing else."""

import queue
from typing import Any, Final

import psycopg
from flask import Flask, request
from uuid_utils.compat import uuid4, uuid7

from app.db.jobs import to_json
from app.process import die_with_parent
from app.settings import load

PATH: Final = "/bare"
_POOL: Final = 8
_INSERT: Final = """
INSERT INTO bench_jobs (id, account_id, dialect, operation, model, provider, queue, status, spec,
                        output_prefix, max_attempts)
VALUES (%(id)s, %(account_id)s, 'bare', 'text_to_image', %(model)s, 'bare', 'bare', 'queued',
        %(spec)s::jsonb, %(output_prefix)s, 5)
"""


def application() -> Flask:
    """Give the application: no authentication, no validation, no event, no rate limit."""
    die_with_parent()
    account_id = uuid7()
    pool: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue()
    url = load().database_url.get_secret_value()
    for _ in range(_POOL):
        pool.put(psycopg.connect(url, autocommit=True))
    flask = Flask("bare")

    @flask.post(PATH)
    def accept() -> tuple[dict[str, Any], int]:
        wanted = request.get_json()
        row = {
            "id": uuid7(),
            "account_id": account_id,
            "model": wanted["modelId"],
            "spec": to_json(wanted),
            "output_prefix": uuid4(),
        }
        connection = pool.get()
        try:
            connection.execute(_INSERT, row)
        finally:
            pool.put(connection)
        return {"jobId": row["id"].hex, "status": "queued"}, 202

    return flask
