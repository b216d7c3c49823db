"""The desk at which a worker orders of a fake vendor: the real provider, on a real database."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from uuid_utils.compat import uuid7

from app import safe_http
from app.db import Database, accounts
from app.domain.catalog import Catalog
from app.domain.spec import JobSpec, Operation, StoredImage
from app.errors import ProviderError
from app.settings import Settings
from tests import rows
from tests.upstreams.upstream import Upstream as Fake
from workers.providers.base import Attempt, Inputs, Picture
from workers.providers.upstream import UpstreamProvider

COST: Final = "0.010000"
TIMEOUT: Final = 2.0
"""Seconds for one exchange: a fake needs a hundredth of it, or is in a mood never to be done."""
LONGEST_WAIT: Final = 3.0
"""Seconds: a job that says it takes one is asked for after one, and after one and a half more."""
MODELS: Final = {
    "modelslab": "v6/realtime",
    "imgprocessing": "sdxl",
    "realm": "mod_landscape",
    "openai": "painter",
}
SIZES: Final = {"modelslab": (64, 48), "imgprocessing": (1024, 1024), "realm": (96, 64), "openai": (64, 48)}
_PREFIX: Final = {"modelslab": "/api", "imgprocessing": "/v1", "realm": "/v1", "openai": "/v1"}
_STORED: Final = StoredImage(key="inputs/x", sha256="0" * 64, width=64, height=64)


@dataclass
class Desk:
    """An account at a fake vendor, the provider that orders by it, and one job to order for."""

    fake: Fake
    provider: UpstreamProvider
    database: Database
    name: str
    model: str
    job_id: UUID = field(default_factory=uuid4)
    max_attempts: int = 5
    warnings: list[str] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)

    @property
    def vendor(self) -> str:
        """Whose fake it is."""
        return self.fake.vendor

    def spec(self, operation: Operation = Operation.TEXT_TO_IMAGE, **changes: Any) -> JobSpec:
        """Give a spec of one small image."""
        width, height = SIZES[self.vendor]
        fields: dict[str, Any] = {"operation": operation, "model": "m", "width": width, "height": height}
        if operation is not Operation.TEXT_TO_IMAGE:
            fields["image"] = _STORED
        if operation is Operation.INPAINT:
            fields["mask_image"] = _STORED
        return rows.make_spec(**{**fields, "seed": 5, **changes})

    def attempt(self, number: int = 1, **changes: Any) -> Attempt:
        """Give the runner's side of an attempt at the job, which has claimed it."""
        have_claimed(
            self.database, changes.get("job_id", self.job_id), number, max_attempts=self.max_attempts
        )
        given: dict[str, Any] = {
            "check": lambda: None,
            "progress": self.progress.append,
            "warn": self.warnings.append,
            "model": self.model,
            "job_id": self.job_id,
            "number": number,
        }
        return Attempt(**{**given, **changes})

    def draw(
        self, spec: JobSpec | None = None, *, inputs: Inputs | None = None, **changes: Any
    ) -> list[Picture]:
        """Give what an attempt yields; changes are the attempt's."""
        return list(self.provider.generate(spec or self.spec(), inputs or Inputs(), self.attempt(**changes)))

    def fails(self, number: int = 1) -> ProviderError:
        """Give what an attempt fails with; AssertionError when it does not."""
        try:
            self.draw(number=number)
        except ProviderError as error:
            return error
        raise AssertionError("the attempt did not fail")

    def calls(self) -> list[rows.Look]:
        """Give the paid calls that were written down for the job, in order."""
        return rows.query(
            self.database,
            "SELECT * FROM upstream_calls WHERE job_id = %(id)s ORDER BY created_at, id",
            id=self.job_id,
        )

    def states(self) -> list[str]:
        """Give how each of them stands."""
        return [call.state for call in self.calls()]

    def state(self) -> rows.Look:
        """Give the account's row."""
        return rows.query(
            self.database,
            "SELECT *, greatest(0, extract(epoch FROM paused_until - now()))::float AS paused_for "
            "FROM provider_state WHERE name = %(name)s",
            name=self.name,
        )[0]

    def job(self) -> rows.Look:
        """Give the job's row."""
        return rows.job(self.database, self.job_id)

    def let_time_pass(self) -> None:
        """Do as if an hour had passed: pauses and the breaker's time are over, turns come, calls are old."""
        for change in (
            """UPDATE provider_state SET paused_until = NULL, opened_until = opened_until - interval '1 hour',
               next_call_at = next_call_at - interval '1 hour' WHERE name = %(name)s""",
            "UPDATE upstream_calls SET created_at = created_at - interval '1 hour' WHERE provider = %(name)s",
        ):
            rows.execute(self.database, change, name=self.name)


def have_claimed(database: Database, job_id: UUID, number: int, *, max_attempts: int = 5) -> None:
    """Have this attempt at a job be under way; the job is made where there is none yet."""
    with database.transaction() as tx:
        owner = accounts.ensure_account(tx, "desk", new_id=uuid7())
    if not rows.query(database, "SELECT 1 FROM jobs WHERE id = %(id)s", id=job_id):
        rows.insert_job(
            database,
            owner,
            id=job_id,
            status="processing",
            max_attempts=max_attempts,
            lease_owner="desk",
            lease_until="now() + interval '1 hour'",
            deadline_at="now() + interval '1 hour'",
        )
    rows.execute(database, "UPDATE jobs SET attempt = %(number)s WHERE id = %(id)s", id=job_id, number=number)


def open_desk(
    fake: Fake,
    database: Database,
    settings: Settings,
    *,
    name: str = "vendor",
    model: str | None = None,
    key: str | None = None,
    capability: dict[str, Any] | None = None,
    **about: Any,
) -> Desk:
    """Give a desk at a fake vendor.

    Args:
        capability: of the target; None: what the api can do.
        about: more of the account, as the catalogue has it.
    """
    width, height = SIZES[fake.vendor]
    model = model or MODELS[fake.vendor]
    entry = {
        "id": "m",
        "name": "The vendor's",
        "created_at": "2026-11-25T00:00:00Z",
        "operations": ["text_to_image", "image_to_image", "inpaint"],
        "width": width,
        "height": height,
        "size": {"min": 16, "max": 1024, "max_pixels": 1048576},
        "max_images": 8,
        "defaults": {"num_inference_steps": 2, "guidance_scale": 7.5, "strength": 0.7},
        "targets": [{"provider": name, "model": model, "cost_per_image": COST, "capability": capability}],
    }
    account = {
        "name": name,
        "api": fake.vendor,
        "base_url": fake.base_url + _PREFIX[fake.vendor],
        "timeout": TIMEOUT,
        "longest_wait": LONGEST_WAIT,
        **about,
    }
    catalog = Catalog.model_validate({"models": [entry], "upstreams": [account]})
    quick = settings.model_copy(update={"fetch_timeout": timedelta(seconds=TIMEOUT)})
    provider = UpstreamProvider(
        upstream=catalog.upstreams[0],
        catalog=catalog,
        key=key or fake.key,
        database=database,
        guard=safe_http.for_upstreams(quick, host=urlsplit(fake.base_url).netloc),
    )
    return Desk(fake=fake, provider=provider, database=database, name=name, model=model)
