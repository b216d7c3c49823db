"""What a worker process copies with into a customer's bucket, and the jobs of that customer."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from uuid_utils.compat import uuid7

from app import retention
from app.buckets import Buckets
from app.db import Database, jobs
from app.db.jobs import Claim
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.customers import Customer
from workers.copying import Copier

_PAST: Final = timedelta(hours=-48)


@dataclass
class Shop:
    """What a worker process copies with, and the jobs of an account that has a bucket."""

    settings: Settings
    database: Database
    storage: Storage
    customer: Customer
    account_id: UUID
    target_id: UUID
    copier: Copier

    def another_process(self) -> Copier:
        """A copier that remembers nothing of what this one met."""
        return make_copier(self.settings, self.database, self.storage)

    def job(self, **columns: Any) -> UUID:
        return rows.insert_job(
            self.database, self.account_id, storage_target_id=self.target_id, dialect="modelslab", **columns
        )

    def finish(self, job_id: UUID, *, images: int = 1) -> list[rows.Look]:
        """Draw, store, copy and settle a job as a worker does; gives its outputs."""
        claim = self._claim(job_id)
        drawn = [self._store(claim, index) for index in range(images)]
        added = self.copier.copy_now(
            self.target_id, drawn, prefix=claim.output_prefix, as_text=bool((claim.echo or {}).get("base64"))
        )
        with self.database.autocommit() as tx:
            assert jobs.settle_completed(
                tx,
                job_id,
                attempt=claim.attempt,
                worker="test",
                outputs=[{**row, **copy} for row, copy in zip(drawn, added, strict=True)],
                retention=self.settings.retention,
                detail={},
            )
        return self.outputs(job_id)

    def outputs(self, job_id: UUID) -> list[rows.Look]:
        return rows.query(
            self.database, 'SELECT * FROM outputs WHERE job_id = %(id)s ORDER BY "index"', id=job_id
        )

    def output(self, job_id: UUID) -> rows.Look:
        (found,) = self.outputs(job_id)
        return found

    def _claim(self, job_id: UUID) -> Claim:
        with self.database.autocommit() as tx:
            claim = jobs.claim(
                tx, job_id, worker="test", lease=timedelta(minutes=1), deadline=timedelta(minutes=5)
            )
        assert claim is not None
        return claim

    def _store(self, claim: Claim, index: int) -> dict[str, object]:
        data = image(claim.job_id, index)
        key = f"outputs/{claim.job_id}/{index}.png"
        self.storage.put(key, data, media_type="image/png")
        return {
            "id": str(uuid7()),
            "index": index,
            "key": key,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "width": 1,
            "height": 1,
            "format": "png",
            "seed": 1,
        }

    def let_time_pass(self, column: str, by: timedelta = _PAST) -> None:
        """Move this moment of every output; what is null stays so."""
        rows.execute(self.database, f"UPDATE outputs SET {column} = {column} + %(by)s", by=by)

    def purge(self) -> int:
        """Purge as if everything had expired long ago; gives how many objects it took."""
        self.let_time_pass("expires_at")
        return retention.purge(self.settings, database=self.database, storage=self.storage).deleted


def image(job_id: UUID, index: int) -> bytes:
    return f"the image {index} of {job_id}".encode()


def make_copier(settings: Settings, database: Database, storage: Storage) -> Copier:
    return Copier(settings, database=database, storage=storage, buckets=Buckets(settings, database))


def name_of(shop: Shop, job_id: UUID, index: int = 0, extension: str = "png") -> str:
    return f"{rows.job(shop.database, job_id).output_prefix.hex}-{index}.{extension}"
