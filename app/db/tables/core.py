"""Accounts, jobs and their events, images in the store, and worker processes."""

from typing import Final

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
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

from app.db.tables.base import FALSE, NOW, ZERO, metadata, moment, one_of
from app.domain.job import Access, CopyState, OutputState, Reason, Status
from app.domain.spec import ImageFormat, Operation

accounts: Final = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column("name", Text, nullable=False, comment="Name an admin gave; unique"),
    moment("created_at", "When the account was created", nullable=False, server_default=NOW),
    moment("disabled_at", "Since when its keys are refused with 403; null: active"),
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
    Column(
        "test",
        Boolean,
        nullable=False,
        server_default=FALSE,
        comment="Whether it begins with test_: what it makes is watermarked and kept apart",
    ),
    moment("created_at", "When it was created", nullable=False, server_default=NOW),
    moment("expires_at", "From when on it is refused; null: never"),
    moment("revoked_at", "When it was revoked; null: valid"),
    moment("last_used_at", "Last use, written at most once a minute; null: never used"),
    UniqueConstraint("digest"),
    comment="API keys of accounts, hashed",
)

jobs: Final = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7; the Realm dialect shows it as job_<hex>"),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, comment="Who asked and who may read"),
    Column("dialect", Text, nullable=False, comment="The API it was submitted through: realm, …"),
    Column("operation", Text, nullable=False, comment="What is done: text_to_image, inpaint, resize, …"),
    Column("model", Text, nullable=False, comment="Id of the catalogue entry"),
    Column("provider", Text, nullable=False, comment="Who draws it: the chosen target's provider"),
    Column(
        "target_model", Text, comment="The provider's own name for the model; null: before migration 0003"
    ),
    Column("queue", Text, nullable=False, comment="Celery queue of the chosen target"),
    Column("batch_key", Text, comment="Jobs that share it may be drawn in one call; null: it is drawn alone"),
    Column(
        "tried",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="Targets that failed it and that it was moved away from, as provider/model",
    ),
    Column(
        "priority", SmallInteger, nullable=False, server_default=ZERO, comment="Higher is released sooner"
    ),
    Column("status", Text, nullable=False, comment="queued, processing, completed, failed or cancelled"),
    Column("spec", JSONB, nullable=False, comment="The JobSpec, with spec_version; never holds an API key"),
    Column(
        "output_prefix",
        Uuid,
        nullable=False,
        comment="Random UUIDv4 in the outputs' public URLs, known before they exist",
    ),
    moment("run_at", "Not before this time; a retry moves it", nullable=False, server_default=NOW),
    moment("dispatched_at", "When relay sent a wake-up; null: not released, it waits here"),
    Column(
        "attempt",
        Integer,
        nullable=False,
        server_default=ZERO,
        comment="Attempts claimed so far; the fence of every statement a worker makes",
    ),
    Column(
        "failures",
        Integer,
        nullable=False,
        server_default=ZERO,
        comment="Attempts charged to the job; a drain is not charged",
    ),
    Column(
        "crashes",
        Integer,
        nullable=False,
        server_default=ZERO,
        comment="Leases lost; at 3 the job is worker_crashed",
    ),
    Column("max_attempts", Integer, nullable=False, comment="Charged attempts after which it fails"),
    Column("lease_owner", Text, comment="Worker process that runs it; null unless processing"),
    moment("lease_until", "Until when that worker is believed alive; null unless processing"),
    moment("deadline_at", "When the running attempt times out; null unless processing"),
    moment("cancel_requested_at", "When somebody asked to cancel it"),
    Column("number", BigInteger, comment="Integer id where the dialect shows one (modelslab); else null"),
    Column("test", Boolean, nullable=False, server_default=FALSE, comment="Whether a test key submitted it"),
    Column("track_id", Text, comment="The caller's own word for it; not unique"),
    Column(
        "webhook_endpoint_id",
        ForeignKey("webhook_endpoints.id"),
        comment="Where the request itself wanted its end told; null: nowhere",
    ),
    Column("base_url", Text, comment="Base URL it was submitted under, for links in what we send later"),
    Column(
        "storage_target_id",
        ForeignKey("storage_targets.id"),
        comment="The customer's bucket that its outputs go to; null: only ours",
    ),
    Column("retain_seconds", Integer, comment="How long its outputs are served; null: DARKROOM_RETENTION"),
    Column(
        "persist", Boolean, nullable=False, server_default=FALSE, comment="Whether its outputs never expire"
    ),
    Column(
        "access",
        Text,
        nullable=False,
        server_default=text("'link'"),
        comment="Who may fetch its outputs at first: link or private; see outputs.access",
    ),
    Column("name", Text, comment="Name of the image it makes (imgprocessing); null: none"),
    Column("echo", JSONB, comment="What the dialect shows again in its answers; never holds an API key"),
    Column("retry_of", ForeignKey("jobs.id"), comment="The ended job that this one repeats"),
    Column("stage", Text, comment="What the running attempt is at: loading, generating, storing"),
    Column("step", Integer, comment="Step it has finished, of steps; null while unknown"),
    Column("steps", Integer, comment="Steps of the whole job; null while unknown"),
    Column(
        "progress",
        REAL,
        nullable=False,
        server_default=ZERO,
        comment="Finished share of the attempt, 0 to 1",
    ),
    Column(
        "warnings", JSONB, comment="Sentences on parameters that were changed or had no effect; null: none"
    ),
    Column("cost", Numeric(12, 6), comment="What its provider charges, by the catalogue; null: unknown"),
    Column("error_code", Text, comment="Why it failed, lower snake case; of the last attempt while queued"),
    Column("error_message", Text, comment="The same in a sentence"),
    moment("created_at", "When it was accepted", nullable=False, server_default=NOW),
    moment("started_at", "When its latest attempt was claimed"),
    moment("finished_at", "When it reached a terminal status; null until then"),
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
    CheckConstraint("access IN ('link', 'private')", name="access"),
    CheckConstraint("retain_seconds > 0", name="retain_seconds"),
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
    Index(
        "jobs_batch_ix",
        "batch_key",
        "account_id",
        desc("priority"),
        "run_at",
        "id",
        postgresql_where=text("status = 'queued' AND batch_key IS NOT NULL"),
    ),
    Index("jobs_account_ix", "account_id", desc("id")),
    Index("jobs_failed_ix", "finished_at", postgresql_where=text("status = 'failed'")),
    Index("jobs_number_ix", "number", unique=True, postgresql_where=text("number IS NOT NULL")),
    Index(
        "jobs_track_ix", "account_id", "track_id", desc("id"), postgresql_where=text("track_id IS NOT NULL")
    ),
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
    moment("at", "When it happened", nullable=False, server_default=NOW),
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
    Column("format", Text, nullable=False, comment="png, jpeg or webp"),
    Column("seed", BigInteger, nullable=False, comment="Seed that reproduces this image alone"),
    Column("state", Text, nullable=False, server_default=text("'live'"), comment="live, purging or purged"),
    moment("created_at", "When its job completed", nullable=False, server_default=NOW),
    moment("expires_at", "Served until then unless persisted; set once, never earlier", nullable=False),
    moment("persisted_at", "Since when it is kept for ever; null: it expires"),
    moment("purged_at", "When the object was gone from the store"),
    moment("deleted_at", "When its owner deleted it; null: not, or it expired"),
    Column("name", Text, comment="Name its owner gave it; null: not in the image library"),
    Column("test", Boolean, nullable=False, server_default=FALSE, comment="Whether a test key made it"),
    Column(
        "access",
        Text,
        nullable=False,
        server_default=text("'link'"),
        comment="Who may fetch it: link (whoever has the URL), private (its account) or public",
    ),
    moment("published_at", "Since when it is public; null: it is not"),
    Column("flagged", Boolean, comment="What the safety checker found; null: it was not checked"),
    Column("copy_state", Text, comment="Its copy in the customer's bucket: pending, copied or given_up"),
    Column("copy_url", Text, comment="Where the customer's bucket shows it, once copied"),
    Column("copy_attempts", Integer, nullable=False, server_default=ZERO, comment="Tries to copy it so far"),
    moment("copy_run_at", "When the next try to copy it is due; null: none is"),
    Column("copy_error", Text, comment="Why the last try to copy it failed"),
    *(CheckConstraint(check, name=name) for check, name in _STATE_CHECKS),
    CheckConstraint("state = 'live' OR persisted_at IS NULL", name="persisted"),
    CheckConstraint(one_of("access", Access), name="access"),
    CheckConstraint("(access = 'public') = (published_at IS NOT NULL)", name="published"),
    CheckConstraint(one_of("copy_state", CopyState), name="copy_state"),
    CheckConstraint("(copy_state = 'copied') = (copy_url IS NOT NULL)", name="copy_url"),
    CheckConstraint(one_of("format", ImageFormat), name="format"),
    UniqueConstraint("job_id", "index"),
    UniqueConstraint("key"),
    Index(
        "outputs_expiring_ix",
        "expires_at",
        postgresql_where=text("state = 'live' AND persisted_at IS NULL"),
    ),
    Index("outputs_purging_ix", "id", postgresql_where=text("state = 'purging'")),
    Index(
        "outputs_library_ix",
        "account_id",
        "test",
        desc("id"),
        postgresql_where=text("state = 'live' AND name IS NOT NULL"),
    ),
    Index("outputs_copying_ix", "copy_run_at", postgresql_where=text("copy_state = 'pending'")),
    comment="Images in the store; the row stays after the object is purged",
)

inputs: Final = Table(
    "inputs",
    metadata,
    Column("key", Text, primary_key=True, comment="Key of the object in the S3 store"),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, comment="The job that reads it"),
    Column("role", Text, nullable=False, comment="image, mask_image or watermark_<n>"),
    Column("sha256", Text, nullable=False, comment="Hash of the object's bytes, hexadecimal"),
    Column("size", BigInteger, nullable=False, comment="Bytes"),
    Column("state", Text, nullable=False, server_default=text("'live'"), comment="live, purging or purged"),
    moment("created_at", "When it was uploaded", nullable=False, server_default=NOW),
    moment("purged_at", "When the object was gone from the store"),
    *(CheckConstraint(check, name=name) for check, name in _STATE_CHECKS),
    CheckConstraint("role IN ('image', 'mask_image') OR role LIKE 'watermark_%'", name="role"),
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
    moment("created_at", "When it was first sent", nullable=False, server_default=NOW),
    moment(
        "expires_at",
        "Until when it is honoured",
        nullable=False,
        server_default=text("now() + interval '24 hours'"),
    ),
    PrimaryKeyConstraint("account_id", "endpoint", "key"),
    Index("idempotency_keys_expires_at_ix", "expires_at"),
    comment="First use of each Idempotency-Key",
)

workers: Final = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True, comment="host:pid:start, unique per process"),
    Column("queues", ARRAY(Text), nullable=False, comment="Queues it consumes"),
    Column("slots", Integer, nullable=False, comment="Jobs it can run at a time"),
    Column("busy", Integer, nullable=False, server_default=ZERO, comment="Jobs it runs now"),
    Column("warm_models", ARRAY(Text), nullable=False, comment="Models loaded in memory, newest first"),
    Column("version", Text, nullable=False, comment="Darkroom version it runs"),
    moment("started_at", "When the process started", nullable=False, server_default=NOW),
    moment("seen_at", "Its last heartbeat", nullable=False, server_default=NOW),
    moment("draining_since", "Since when it claims nothing more; null: it works"),
    Index("workers_seen_at_ix", "seen_at"),
    comment="Worker processes by heartbeat; silent ones are deleted after a day",
)
