"""Models with several targets, and who is there to draw them, as the tables know it: nobody really draws."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from uuid_utils.compat import uuid7

from app.db import Database, upstreams, workers
from app.domain import catalog
from app.domain.calls import CallState
from app.domain.catalog import Catalog
from app.pool import Pool
from app.settings import Settings
from tests import rows

GPU, SHOP, ANNEX = "gpu.hill", "provider.shop", "provider.annex"
_ENTRY = """
    name: Hill
    created_at: 2026-11-25T00:00:00Z
    width: 64
    height: 64
    size: {min: 8, max: 1024, multiple: 8, max_pixels: 1048576}
    max_images: 4
    defaults: {num_inference_steps: 4, guidance_scale: 5.0, strength: 0.7}
"""
_DRAWS = "    operations: [text_to_image, image_to_image]"
FILE = f"""
models:
  - id: hill
{_DRAWS}{_ENTRY}    spill_after: 30
    targets:
      - {{provider: diffusers, model: hill, queue: {GPU}}}
      - {{provider: shop, model: hills-1, capability: {{max_side: 128}}}}
      - {{provider: annex, model: hills-2, capability: {{max_side: 256}}}}
  - id: lone
{_DRAWS}{_ENTRY}    targets: [{{provider: diffusers, model: hill, queue: {GPU}}}]
  - id: bought
{_DRAWS}{_ENTRY}    targets:
      - {{provider: shop, model: hills-1, capability: {{max_side: 128}}}}
      - {{provider: annex, model: hills-2, capability: {{max_side: 256, operations: [text_to_image]}}}}
  - id: dice
{_DRAWS}{_ENTRY}    routing: weighted
    spill_after: 30
    targets:
      - {{provider: shop, model: hills-1, weight: 3}}
      - {{provider: annex, model: hills-2, weight: 1}}
profiles:
  - {{name: hill, family: sd15, source: hill}}
upstreams:
  - {{name: shop, api: openai, base_url: "https://shop.example/v1", concurrency: 2}}
  - {{name: annex, api: openai, base_url: "https://annex.example/v1", concurrency: 2}}
"""


def with_targets(settings: Settings, folder: Path, **changes: Any) -> Settings:
    """Give settings with these models, and keys for both upstreams."""
    file = folder / "models.yaml"
    file.write_text(FILE)
    keys = SecretStr("shop=sk-1, annex=sk-2")
    return settings.model_copy(update={"models_file": file, "upstream_keys": keys, **changes})


def staff(database: Database, queue: str, *, slots: int = 1, warm: Sequence[str] = ()) -> None:
    """Have a live worker take jobs from a queue."""
    with database.autocommit() as tx:
        workers.beat(
            tx,
            f"worker of {queue}",
            queues=[queue],
            slots=slots,
            busy=0,
            warm_models=warm,
            version="test",
            draining=False,
        )


def dismiss(database: Database, queue: str) -> None:
    """Have the worker of a queue be gone."""
    with database.autocommit() as tx:
        workers.leave(tx, f"worker of {queue}")


def break_(database: Database, upstream: str) -> None:
    """Open the breaker of an upstream."""
    with database.autocommit() as tx:
        upstreams.ensure(tx, upstream)
        upstreams.failed(tx, upstream, reason="HTTP 500 from 10.0.0.7", at_once=True)


def mend(database: Database, upstream: str) -> None:
    """Close the breaker of an upstream."""
    with database.autocommit() as tx:
        upstreams.succeeded(tx, upstream)


def buy(database: Database, job_id: UUID, state: str) -> None:
    """Have a paid call of a job to the shop be in this state."""
    with database.autocommit() as tx:
        call = uuid7()
        tx.exec_driver_sql(
            "INSERT INTO upstream_calls "
            "(id, job_id, attempt, provider, first_index, images, reference, state) "
            "VALUES (%(id)s, %(job_id)s, 1, 'shop', 0, 1, 'r', 'sending')",
            {"id": call, "job_id": job_id},
        )
        if state == "accepted":
            upstreams.accept_call(tx, call, upstream_id="42")
        elif state != "sending":
            upstreams.end_call(tx, call, CallState(state))


@dataclass
class Basin:
    """The pool of a relay whose clock a test moves on, and jobs to be moved."""

    settings: Settings
    database: Database
    account_id: UUID
    now: float = 0.0
    known: Catalog = field(init=False)
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        self.known = catalog.load(self.settings.models_file)
        self.pool = self.another()
        self.pass_by(self.settings.lease)

    def another(self) -> Pool:
        """Give the pool of another process with the same clock."""
        return Pool(self.settings, self.database, self.known, clock=lambda: self.now, chance=lambda: 0.9)

    def pass_by(self, time: timedelta) -> None:
        """Let time go by."""
        self.now += time.total_seconds()

    def reroute(self, pool: Pool | None = None) -> tuple[int, int]:
        """Let a relay look once more; gives how many jobs it moved, and how many it gave up."""
        self.pass_by(timedelta(seconds=2))
        done = (pool or self.pool).reroute_now_and_then()
        return done.moved, done.given_up

    def job(self, model: str = "hill", *, at: int = 0, owner: UUID | None = None, **columns: Any) -> UUID:
        """Give a job that waits at the target of its model that has this number."""
        target = self.known.find(model).targets[at]
        wanted: dict[str, Any] = {"model": model, "width": 64, "height": 64, "seed": 77}
        wanted |= {name: columns.pop(name) for name in ("width", "height") if name in columns}
        spec = rows.make_spec(**wanted)
        placed = {
            "provider": target.provider,
            "queue": target.queue,
            "target_model": target.model,
            "batch_key": self.known.batch_key(spec, target),
        }
        job_id = rows.insert_job(self.database, owner or self.account_id, spec=spec, **{**placed, **columns})
        rows.execute(
            self.database,
            "INSERT INTO job_events (job_id, to_status, attempt, reason) "
            "VALUES (%(id)s, 'queued', 0, 'submitted')",
            id=job_id,
        )
        return job_id

    def queue(self, job_id: UUID) -> str:
        """Give the queue that a job is on."""
        found = rows.job(self.database, job_id).queue
        assert isinstance(found, str)
        return found

    def last_event(self, job_id: UUID) -> rows.Look:
        """Give what happened to a job last."""
        return rows.query(
            self.database,
            "SELECT * FROM job_events WHERE job_id = %(id)s ORDER BY id DESC LIMIT 1",
            id=job_id,
        )[0]
