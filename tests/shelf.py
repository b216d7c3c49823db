"""Outputs that lie in the store, each of a completed job of its own."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from app.db import Database
from app.storage import Storage
from tests import rows
from tests.conftest import Account

DATA = bytes(range(256)) * 4
SHA = hashlib.sha256(DATA).hexdigest()
HOUR = timedelta(hours=1)


class Shelf:
    """Completed jobs of one account, and their outputs."""

    def __init__(self, database: Database, storage: Storage, owner: Account) -> None:
        self.database = database
        self._storage = storage
        self._owner = owner

    def put(self, *, expires_in: timedelta = HOUR, stored: bool = True, **columns: Any) -> tuple[str, UUID]:
        """An output of a job of its own; gives its path and its id."""
        prefix = uuid4()
        job_id = rows.insert_job(
            self.database,
            self._owner.id,
            status="completed",
            started_at="now()",
            finished_at="now()",
            output_prefix=prefix,
        )
        key = f"outputs/{job_id}/0.png"
        if stored:
            self._storage.put(key, DATA, media_type="image/png")
        output_id = rows.insert_output(
            self.database, job_id, key=key, sha256=SHA, size=len(DATA), expires_in=expires_in, **columns
        )
        return f"/outputs/{prefix.hex}-0.png", output_id
