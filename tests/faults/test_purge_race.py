"""Persist against purge: whoever comes first wins, and nothing that is kept loses its object."""

import itertools
import random
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

from uuid_utils.compat import uuid7

from app import retention
from app.db import jobs
from app.errors import Gone
from app.storage import output_key
from tests.faults.house import House

JOBS, IMAGES = 60, 4
ROUNDS = 3
LONGEST_MS = 40.0
"""An output that was let go expires within this: about as soon as it is persisted again."""


def complete(house: House) -> list[UUID]:
    """Complete a job as a worker does, but for the drawing; gives the ids of its outputs."""
    job_id = house.submit(images=IMAGES)
    with house.database.autocommit() as tx:
        claim = jobs.claim(
            tx, job_id, worker="test:1:1", lease=house.settings.lease, deadline=house.settings.job_deadline
        )
    assert claim
    rows = [_stored(house, claim, index) for index in range(IMAGES)]
    with house.database.autocommit() as tx:
        assert jobs.settle_completed(
            tx,
            job_id,
            attempt=1,
            worker="test:1:1",
            outputs=rows,
            retention=house.settings.retention,
            detail={},
        )
    return [UUID(str(row["id"])) for row in rows]


def _stored(house: House, claim: jobs.Claim, index: int) -> dict[str, object]:
    data = secrets.token_bytes(100)
    digest = sha256(data).hexdigest()
    key = output_key(
        claim.account_id,
        claim.created_at.date(),
        job_id=claim.job_id,
        attempt=claim.attempt,
        index=index,
        sha256=digest,
        extension="png",
    )
    house.storage.put(key, data, media_type="image/png")
    return {
        "id": str(uuid7()),
        "index": index,
        "key": key,
        "sha256": digest,
        "size": len(data),
        "width": 1,
        "height": 1,
        "format": "png",
        "seed": 1,
    }


def test_of_persist_and_purge_one_wins_and_nothing_kept_is_lost(house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        output_ids = list(itertools.chain(*pool.map(lambda _: complete(house), range(JOBS))))
        for output_id in output_ids:
            retention.persist(house.database, output_id, account_id=house.account.id)
    with house.database.autocommit() as tx:
        tx.exec_driver_sql("UPDATE outputs SET expires_at = now()")
    impatient = house.settings.model_copy(update={"purge_grace": timedelta(0)})
    ended, kept = threading.Event(), set[UUID]()

    def purge_all_the_time() -> int:
        deleted = 0
        while not ended.is_set():
            deleted += retention.purge(impatient, database=house.database, storage=house.storage).deleted
        return deleted

    def let_go_and_keep_again(output_id: UUID) -> None:
        chance = random.uniform(1, LONGEST_MS)  # noqa: S311 - no secret
        soon = house.settings.model_copy(update={"retention": timedelta(milliseconds=chance)})
        try:
            for _ in range(ROUNDS):
                retention.unpersist(soon, house.database, output_id, account_id=house.account.id)
                retention.persist(house.database, output_id, account_id=house.account.id)
            kept.add(output_id)
        except Gone:
            pass

    with ThreadPoolExecutor(6) as pool:
        purges = [pool.submit(purge_all_the_time) for _ in range(3)]
        list(pool.map(let_go_and_keep_again, output_ids))
        ended.set()
    assert 0 < len(kept) < len(output_ids), "there was no race"
    house.ends_well()
    with house.database.autocommit() as tx:
        live = {row.id for row in tx.exec_driver_sql("SELECT id FROM outputs WHERE state = 'live'")}
    assert kept <= live
    assert sum(purge.result() for purge in purges) >= len(output_ids) - len(live)
