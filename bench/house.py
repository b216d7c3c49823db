"""A Darkroom of its own for one run of the bench: real servers in a temporary folder, gone afterwards."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy.engine import Connection

from app import auth, settings
from app.db import Database, bell, connect, migrate
from app.domain.spec import JobSpec, Operation
from app.errors import SetupError
from app.local.machine import Machine
from app.local.stack import Stack
from app.settings import Settings
from app.storage import open_store
from bench.load import HOST, post
from bench.programs import PYTHON, ROOT, Running, answers, tree_cpu

MODELS: Final = Path(__file__).with_name("models.yaml")
QUEUE: Final = "bench"
"""The Celery queue that every model of the bench's catalogue names."""
_UNLIMITED: Final = 10_000_000
BODY: Final = orjson.dumps(
    {
        "modelId": "pixel",
        "prompt": "a lighthouse on a cliff at dusk, long exposure, soft waves, film grain, wide shot",
        "negativePrompt": "blurry, low quality, watermark, text",
        "width": 16,
        "height": 16,
        "guidanceScale": 7.5,
        "numOutputs": 1,
        "seed": 20261121,
    }
)
"""A request of realistic size for POST /v1/images/generate."""


@dataclass(frozen=True, kw_only=True)
class House:
    """The servers, an account and its key."""

    stack: Stack
    settings: Settings
    database: Database
    account_id: UUID
    key: str

    def request(self) -> bytes:
        """Give an HTTP request that is accepted as a job."""
        return post("/v1/images/generate", BODY, {"X-API-Key": self.key})

    def start(self, name: str, argv: list[str], *, ready: Callable[[], bool], **environment: str) -> Running:
        """Prepare a program with the house's settings in its environment; enter it to start it."""
        return Running(
            name,
            argv,
            environment=settings.environment_of_child(**(self.environment() | environment)),
            log=self.stack.state / "logs" / f"{name.replace(' ', '-')}.log",
            ready=ready,
        )

    def start_server(self, name: str, *, server: str, application: str, port: int) -> Running:
        """Prepare a WSGI server; see `bench.serve`."""
        argv = [PYTHON, "-m", "bench.serve", server, application, str(port)]
        return self.start(name, argv, ready=lambda: answers(port))

    def environment(self) -> dict[str, str]:
        """Give the settings of the house as environment variables."""
        return {
            **self.stack.environment,
            "DARKROOM_STATE": str(self.stack.state),
            "DARKROOM_MODELS_FILE": str(MODELS),
            "DARKROOM_RATE_LIMIT_PER_MINUTE": str(_UNLIMITED),
            "DARKROOM_MAX_UNFINISHED_JOBS": str(_UNLIMITED),
            "PYTHONPATH": f"{ROOT}:{settings.environment_of_child().get('PYTHONPATH', '')}".rstrip(":"),
            "PYTHONUNBUFFERED": "1",
        }

    def server_cpu(self, name: str) -> float:
        """Give the CPU seconds that `postgres`, `valkey` or `s3` has used."""
        pid = self.stack.supervisor.pid(name)
        return 0.0 if pid is None else tree_cpu(pid)

    def empty(self) -> None:
        """Delete all jobs with everything that belongs to them."""
        with self.database.transaction() as tx:
            tx.exec_driver_sql(
                "TRUNCATE jobs, job_events, outputs, inputs, idempotency_keys, bench_jobs CASCADE"
            )

    def add_jobs(self, count: int, spec: JobSpec) -> None:
        """Write a backlog of due jobs in one transaction, and ring for the relay."""
        with self.database.transaction() as tx:
            tx.exec_driver_sql(
                "INSERT INTO jobs (id, account_id, dialect, operation, model, provider, queue, status, spec, "
                "output_prefix, max_attempts) SELECT gen_random_uuid(), %(account_id)s, 'realm', "
                "'text_to_image', %(model)s, %(provider)s, %(queue)s, 'queued', %(spec)s::jsonb, "
                "gen_random_uuid(), 5 FROM generate_series(1, %(count)s)",
                {
                    "account_id": self.account_id,
                    "model": spec.model,
                    "provider": f"bench_{spec.model}",
                    "queue": QUEUE,
                    "spec": spec.model_dump_json(),
                    "count": count,
                },
            )
            tx.exec_driver_sql("SELECT pg_notify(%(channel)s, '')", {"channel": bell.JOBS})

    def job_ids(self) -> list[UUID]:
        """Give the ids of all jobs."""
        with self.database.autocommit() as tx:
            return [row.id for row in tx.exec_driver_sql("SELECT id FROM jobs")]

    def live_slots(self) -> int:
        """Count the slots of the workers that signed on."""
        with self.database.autocommit() as tx:
            return _number(tx, "SELECT coalesce(sum(slots), 0) FROM workers")

    def unfinished(self) -> int:
        """Count the jobs that are queued or running."""
        with self.database.autocommit() as tx:
            return _number(tx, "SELECT count(*) FROM jobs WHERE status IN ('queued', 'processing')")

    def completed_at(self) -> list[float]:
        """Give when each job was completed, in Unix seconds by the database's clock.

        Raises:
            SetupError: a job ended in another way.
        """
        with self.database.autocommit() as tx:
            rows = tx.exec_driver_sql(
                "SELECT status, error_message, extract(epoch FROM finished_at)::float AS at FROM jobs"
            ).all()
        for row in rows:
            if row.status != "completed":
                raise SetupError(f"a job of the bench is {row.status}: {row.error_message}")
        return [row.at for row in rows]


def spec_of(model: str, *, num_images: int = 1, side: int = 16) -> JobSpec:
    """Give what a job of the bench asks for."""
    return JobSpec(
        operation=Operation.TEXT_TO_IMAGE,
        model=model,
        prompt="a lighthouse on a cliff at dusk",
        width=side,
        height=side,
        num_inference_steps=1,
        guidance_scale=0,
        seed=1,
        num_images=num_images,
    )


@contextmanager
def open_house(say: Callable[[str], None]) -> Iterator[House]:
    """Start the servers in a temporary folder; stop them and delete it at the end.

    Raises:
        SetupError: a server does not start.
    """
    # Root's PostgreSQL runs as `nobody`, who must be able to walk through the folder.
    folder = Path(tempfile.mkdtemp(prefix="darkroom-bench-"))
    folder.chmod(0o755)
    try:
        say("Starting PostgreSQL, Valkey and the S3 store …")
        stack = Stack.open(folder / "state", machine=Machine(given=lambda _: False))
        try:
            yield _furnished(stack)
        finally:
            stack.discard()
    finally:
        folder.rmdir()


def _furnished(stack: Stack) -> House:
    loaded = settings.load(
        stack.state,
        models_file=MODELS,
        rate_limit_per_minute=_UNLIMITED,
        max_unfinished_jobs=_UNLIMITED,
        **_fields(stack.environment),
    )
    migrate.upgrade(loaded.database_url.get_secret_value())
    open_store(loaded).ensure_bucket()
    database = connect(loaded, pool_size=4, application_name="darkroom bench")
    with database.transaction() as tx:
        new = auth.create_key(
            tx, account="bench", name="bench", secret_key=loaded.secret_key.get_secret_value()
        )
        # The same columns, checks and indexes, but no foreign keys and no triggers: a bare table.
        tx.exec_driver_sql("CREATE TABLE bench_jobs (LIKE jobs INCLUDING ALL)")
    assert new is not None
    return House(stack=stack, settings=loaded, database=database, account_id=new.account_id, key=new.key)


def _fields(environment: Mapping[str, str]) -> dict[str, Any]:
    """The stack's settings as arguments, which win over whatever the environment of the run has set."""
    return {name.removeprefix("DARKROOM_").lower(): value for name, value in environment.items()}


def _number(tx: Connection, statement: str) -> int:
    return int(tx.exec_driver_sql(statement).scalar_one())


def url(port: int, path: str) -> str:
    """Give the address of a path on one of our servers."""
    return f"http://{HOST}:{port}{path}"
