"""Every table and column of schema `public`, each with a comment that psql shows.

The migrations are the truth of a running database; a test holds these definitions equal to it.
Text with a named CHECK instead of enums: a CHECK can drop a value, an enum cannot.
"""

from typing import Any, Final

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    desc,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.domain.job import OutputState, Reason, Status
from app.domain.spec import ImageFormat, Operation

metadata: Final = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_ix",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

_NOW = text("now()")
_ZERO = text("0")


def _time(name: str, comment: str, **options: Any) -> Column[Any]:
    return Column(name, DateTime(timezone=True), comment=comment, **options)


def one_of(column: str, values: type[Status | OutputState | Operation | ImageFormat | Reason]) -> str:
    """Give the CHECK that allows `column` only the values of an enum, in the enum's order."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


accounts: Final = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column("name", Text, nullable=False, comment="Name an admin gave; unique"),
    _time("created_at", "When the account was created", nullable=False, server_default=_NOW),
    _time("disabled_at", "Since when its keys are refused with 403; null: active"),
    UniqueConstraint("name"),
    CheckConstraint("name <> ''", name="name"),
    comment="Tenants: keys, jobs and outputs belong to exactly one",
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7; what `darkroom keys revoke` takes"),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True, comment="Whose key"),
    Column("name", Text, nullable=False, comment="What an admin called it"),
    Column("prefix", Text, nullable=False, comment="First characters of the key, to recognise it by"),
    Column(
        "digest", LargeBinary, nullable=False, comment="HMAC-SHA256 of the key; the key itself is not kept"
    ),
    _time("created_at", "When it was created", nullable=False, server_default=_NOW),
    _time("expires_at", "From when on it is refused; null: never"),
    _time("revoked_at", "When it was revoked; null: valid"),
    _time("last_used_at", "Last use, written at most once a minute; null: never used"),
    UniqueConstraint("digest"),
    comment="API keys of accounts, hashed",
)

jobs: Final = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7; the Realm dialect shows it as job_<hex>"),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, comment="Who asked and who may read"),
    Column("dialect", Text, nullable=False, comment="The API it was submitted through: realm, …"),
    Column("operation", Text, nullable=False, comment="text_to_image, image_to_image or inpaint"),
    Column("model", Text, nullable=False, comment="Id of the catalogue entry"),
    Column("provider", Text, nullable=False, comment="Who draws it: the chosen target's provider"),
    Column("queue", Text, nullable=False, comment="Celery queue of the chosen target"),
    Column(
        "priority", SmallInteger, nullable=False, server_default=_ZERO, comment="Higher is released sooner"
    ),
    Column("status", Text, nullable=False, comment="queued, processing, completed, failed or cancelled"),
    Column("spec", JSONB, nullable=False, comment="The JobSpec, with spec_version; never holds an API key"),
    Column(
        "output_prefix",
        Uuid,
        nullable=False,
        comment="Random UUIDv4 in the outputs' public URLs, known before they exist",
    ),
    _time("run_at", "Not before this time; a retry moves it", nullable=False, server_default=_NOW),
    _time("dispatched_at", "When relay sent a wake-up; null: not released, it waits here"),
    Column(
        "attempt",
        Integer,
        nullable=False,
        server_default=_ZERO,
        comment="Attempts claimed so far; the fence of every statement a worker makes",
    ),
    Column(
        "failures",
        Integer,
        nullable=False,
        server_default=_ZERO,
        comment="Attempts charged to the job; a drain is not charged",
    ),
    Column(
        "crashes",
        Integer,
        nullable=False,
        server_default=_ZERO,
        comment="Leases lost; at 3 the job is worker_crashed",
    ),
    Column("max_attempts", Integer, nullable=False, comment="Charged attempts after which it fails"),
    Column("lease_owner", Text, comment="Worker process that runs it; null unless processing"),
    _time("lease_until", "Until when that worker is believed alive; null unless processing"),
    _time("deadline_at", "When the running attempt times out; null unless processing"),
    _time("cancel_requested_at", "When somebody asked to cancel it"),
    Column(
        "progress",
        REAL,
        nullable=False,
        server_default=_ZERO,
        comment="Finished share of the attempt, 0 to 1",
    ),
    Column("error_code", Text, comment="Why it failed, lower snake case; of the last attempt while queued"),
    Column("error_message", Text, comment="The same in a sentence"),
    _time("created_at", "When it was accepted", nullable=False, server_default=_NOW),
    _time("started_at", "When its latest attempt was claimed"),
    _time("finished_at", "When it reached a terminal status; null until then"),
    CheckConstraint(one_of("status", Status), name="status"),
    CheckConstraint(one_of("operation", Operation), name="operation"),
    CheckConstraint("attempt >= 0 AND failures >= 0 AND crashes >= 0 AND max_attempts >= 1", name="counts"),
    CheckConstraint("progress >= 0 AND progress <= 1", name="progress"),
    CheckConstraint(
        "(status = 'processing') = (lease_owner IS NOT NULL) AND (status = 'processing') = "
        "(lease_until IS NOT NULL) AND (status = 'processing') = (deadline_at IS NOT NULL)",
        name="lease",
    ),
    CheckConstraint(
        "(status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"
    ),
    CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name="error"),
    UniqueConstraint("output_prefix"),
    Index(
        "jobs_due_ix",
        "queue",
        "account_id",
        desc("priority"),
        "run_at",
        "id",
        postgresql_where=text("status = 'queued' AND dispatched_at IS NULL"),
    ),
    Index(
        "jobs_dispatched_ix",
        "queue",
        "dispatched_at",
        postgresql_where=text("status = 'queued' AND dispatched_at IS NOT NULL"),
    ),
    # Not on lease_until: each heartbeat would then write an index entry instead of a heap-only tuple.
    Index("jobs_processing_ix", "queue", "account_id", postgresql_where=text("status = 'processing'")),
    Index("jobs_account_ix", "account_id", desc("id")),
    Index("jobs_failed_ix", "finished_at", postgresql_where=text("status = 'failed'")),
    comment="Every accepted job, for ever; the row is the job, a Celery message only a wake-up",
)

job_events: Final = Table(
    "job_events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True, comment="Ascending in the order of writing"),
    Column(
        "job_id",
        Uuid,
        nullable=False,
        index=True,
        comment="The job; no foreign key, as each row is written by the statement that writes the job",
    ),
    _time("at", "When it happened", nullable=False, server_default=_NOW),
    Column("from_status", Text, comment="Status before; null for the first event"),
    Column("to_status", Text, nullable=False, comment="Status after"),
    Column("attempt", Integer, nullable=False, comment="The job's attempt at that time"),
    Column("reason", Text, nullable=False, comment="submitted, claimed, completed, retry, drained, …"),
    Column("worker", Text, comment="Worker process concerned, if any"),
    Column("detail", JSONB, comment="More about it: error, delay, seconds per stage, traceback"),
    CheckConstraint(one_of("reason", Reason), name="reason"),
    comment="One row per transition of a job: its timeline",
)

_STATE_CHECKS: Final = (
    (one_of("state", OutputState), "state"),
    ("(state = 'purged') = (purged_at IS NOT NULL)", "purged"),
)

outputs: Final = Table(
    "outputs",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7; the Realm dialect shows it as img_<hex>"),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, comment="The job that drew it"),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, comment="Whose it is"),
    Column("attempt", Integer, nullable=False, comment="The attempt that drew it: the winning one"),
    Column("index", Integer, nullable=False, comment="Position within the job, from 0"),
    Column("key", Text, nullable=False, comment="Key of the object in the S3 store"),
    Column("sha256", Text, nullable=False, comment="Hash of the object's bytes, hexadecimal"),
    Column("size", BigInteger, nullable=False, comment="Bytes"),
    Column("width", Integer, nullable=False, comment="Pixels"),
    Column("height", Integer, nullable=False, comment="Pixels"),
    Column("format", Text, nullable=False, comment="png or jpeg"),
    Column("seed", BigInteger, nullable=False, comment="Seed that reproduces this image alone"),
    Column("state", Text, nullable=False, server_default=text("'live'"), comment="live, purging or purged"),
    _time("created_at", "When its job completed", nullable=False, server_default=_NOW),
    _time("expires_at", "Served until then unless persisted; set once, never earlier", nullable=False),
    _time("persisted_at", "Since when it is kept for ever; null: it expires"),
    _time("purged_at", "When the object was gone from the store"),
    *(CheckConstraint(check, name=name) for check, name in _STATE_CHECKS),
    CheckConstraint("state = 'live' OR persisted_at IS NULL", name="persisted"),
    CheckConstraint(one_of("format", ImageFormat), name="format"),
    UniqueConstraint("job_id", "index"),
    UniqueConstraint("key"),
    Index(
        "outputs_expiring_ix",
        "expires_at",
        postgresql_where=text("state = 'live' AND persisted_at IS NULL"),
    ),
    Index("outputs_purging_ix", "id", postgresql_where=text("state = 'purging'")),
    comment="Images in the store; the row stays after the object is purged",
)

inputs: Final = Table(
    "inputs",
    metadata,
    Column("key", Text, primary_key=True, comment="Key of the object in the S3 store"),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, comment="The job that reads it"),
    Column("role", Text, nullable=False, comment="image or mask_image"),
    Column("sha256", Text, nullable=False, comment="Hash of the object's bytes, hexadecimal"),
    Column("size", BigInteger, nullable=False, comment="Bytes"),
    Column("state", Text, nullable=False, server_default=text("'live'"), comment="live, purging or purged"),
    _time("created_at", "When it was uploaded", nullable=False, server_default=_NOW),
    _time("purged_at", "When the object was gone from the store"),
    *(CheckConstraint(check, name=name) for check, name in _STATE_CHECKS),
    CheckConstraint("role IN ('image', 'mask_image')", name="role"),
    Index("inputs_live_ix", "job_id", postgresql_where=text("state = 'live'")),
    Index("inputs_purging_ix", "key", postgresql_where=text("state = 'purging'")),
    comment="Uploaded input images; purged like outputs, counted from the end of their job",
)

idempotency_keys: Final = Table(
    "idempotency_keys",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), nullable=False, comment="Whose key"),
    Column("endpoint", Text, nullable=False, comment="The operation it was sent to"),
    Column("key", Text, nullable=False, comment="The Idempotency-Key header"),
    Column(
        "request_sha256", LargeBinary, nullable=False, comment="Hash of the request it was first sent with"
    ),
    Column("job_id", Uuid, nullable=False, comment="The job the first request made"),
    _time("created_at", "When it was first sent; honoured for 24 h", nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("account_id", "endpoint", "key"),
    Index("idempotency_keys_created_at_ix", "created_at"),
    comment="First use of each Idempotency-Key",
)

workers: Final = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True, comment="host:pid:start, unique per process"),
    Column("queues", ARRAY(Text), nullable=False, comment="Queues it consumes"),
    Column("slots", Integer, nullable=False, comment="Jobs it can run at a time"),
    Column("busy", Integer, nullable=False, server_default=_ZERO, comment="Jobs it runs now"),
    Column("warm_models", ARRAY(Text), nullable=False, comment="Models loaded in memory, newest first"),
    Column("version", Text, nullable=False, comment="Darkroom version it runs"),
    _time("started_at", "When the process started", nullable=False, server_default=_NOW),
    _time("seen_at", "Its last heartbeat", nullable=False, server_default=_NOW),
    _time("draining_since", "Since when it claims nothing more; null: it works"),
    Index("workers_seen_at_ix", "seen_at"),
    comment="Worker processes by heartbeat; silent ones are deleted after a day",
)
