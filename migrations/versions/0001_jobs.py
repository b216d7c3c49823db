"""Accounts, jobs and their events, outputs and inputs, workers.

The code of the release before must run on the schema this leaves behind; here there is none.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FINAL_STATUS = """
CREATE FUNCTION refuse_to_leave_terminal_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job % is % for good and cannot become %', OLD.id, OLD.status, NEW.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'jobs_terminal_status_check';
END $$;
COMMENT ON FUNCTION refuse_to_leave_terminal_status() IS
    'Keeps completed, failed and cancelled final, whoever writes the statement';
CREATE TRIGGER jobs_terminal_status BEFORE UPDATE OF status ON jobs FOR EACH ROW
    WHEN (OLD.status IN ('completed', 'failed', 'cancelled') AND NEW.status <> OLD.status)
    EXECUTE FUNCTION refuse_to_leave_terminal_status();
"""


def upgrade() -> None:
    _create_accounts()
    _create_api_keys()
    _create_jobs()
    _create_job_events()
    _create_outputs()
    _create_inputs()
    _create_idempotency_keys()
    _create_workers()
    op.execute(FINAL_STATUS)


def downgrade() -> None:
    op.execute("DROP TRIGGER jobs_terminal_status ON jobs")
    op.execute("DROP FUNCTION refuse_to_leave_terminal_status()")
    for table in (
        "workers",
        "idempotency_keys",
        "inputs",
        "outputs",
        "job_events",
        "jobs",
        "api_keys",
        "accounts",
    ):
        op.drop_table(table)


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column("name", sa.Text(), nullable=False, comment="Name an admin gave; unique"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the account was created",
        ),
        sa.Column(
            "disabled_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when its keys are refused with 403; null: active",
        ),
        sa.CheckConstraint("name <> ''", name=op.f("accounts_name_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("accounts_pkey")),
        sa.UniqueConstraint("name", name=op.f("accounts_name_key")),
        comment="Tenants: keys, jobs and outputs belong to exactly one",
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7; what `darkroom keys revoke` takes"),
        sa.Column("account_id", sa.Uuid(), nullable=False, comment="Whose key"),
        sa.Column("name", sa.Text(), nullable=False, comment="What an admin called it"),
        sa.Column(
            "prefix", sa.Text(), nullable=False, comment="First characters of the key, to recognise it by"
        ),
        sa.Column(
            "digest",
            sa.LargeBinary(),
            nullable=False,
            comment="HMAC-SHA256 of the key; the key itself is not kept",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was created",
        ),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="From when on it is refused; null: never",
        ),
        sa.Column(
            "revoked_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was revoked; null: valid",
        ),
        sa.Column(
            "last_used_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Last use, written at most once a minute; null: never used",
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("api_keys_account_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        sa.UniqueConstraint("digest", name=op.f("api_keys_digest_key")),
        comment="API keys of accounts, hashed",
    )
    op.create_index(op.f("api_keys_account_id_ix"), "api_keys", ["account_id"], unique=False)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7; the Realm dialect shows it as job_<hex>"),
        sa.Column("account_id", sa.Uuid(), nullable=False, comment="Who asked and who may read"),
        sa.Column("dialect", sa.Text(), nullable=False, comment="The API it was submitted through: realm, …"),
        sa.Column("operation", sa.Text(), nullable=False, comment="text_to_image, image_to_image or inpaint"),
        sa.Column("model", sa.Text(), nullable=False, comment="Id of the catalogue entry"),
        sa.Column(
            "provider", sa.Text(), nullable=False, comment="Who draws it: the chosen target's provider"
        ),
        sa.Column("queue", sa.Text(), nullable=False, comment="Celery queue of the chosen target"),
        sa.Column(
            "priority",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Higher is released sooner",
        ),
        sa.Column(
            "status", sa.Text(), nullable=False, comment="queued, processing, completed, failed or cancelled"
        ),
        sa.Column(
            "spec",
            postgresql.JSONB(astext_type=Text()),
            nullable=False,
            comment="The JobSpec, with spec_version; never holds an API key",
        ),
        sa.Column(
            "output_prefix",
            sa.Uuid(),
            nullable=False,
            comment="Random UUIDv4 in the outputs' public URLs, known before they exist",
        ),
        sa.Column(
            "run_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="Not before this time; a retry moves it",
        ),
        sa.Column(
            "dispatched_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When relay sent a wake-up; null: not released, it waits here",
        ),
        sa.Column(
            "attempt",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Attempts claimed so far; the fence of every statement a worker makes",
        ),
        sa.Column(
            "failures",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Attempts charged to the job; a drain is not charged",
        ),
        sa.Column(
            "crashes",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Leases lost; at 3 the job is worker_crashed",
        ),
        sa.Column(
            "max_attempts", sa.Integer(), nullable=False, comment="Charged attempts after which it fails"
        ),
        sa.Column(
            "lease_owner",
            sa.Text(),
            nullable=True,
            comment="Worker process that runs it; null unless processing",
        ),
        sa.Column(
            "lease_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Until when that worker is believed alive; null unless processing",
        ),
        sa.Column(
            "deadline_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the running attempt times out; null unless processing",
        ),
        sa.Column(
            "cancel_requested_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When somebody asked to cancel it",
        ),
        sa.Column(
            "progress",
            sa.REAL(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Finished share of the attempt, 0 to 1",
        ),
        sa.Column(
            "error_code",
            sa.Text(),
            nullable=True,
            comment="Why it failed, lower snake case; of the last attempt while queued",
        ),
        sa.Column("error_message", sa.Text(), nullable=True, comment="The same in a sentence"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was accepted",
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its latest attempt was claimed",
        ),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it reached a terminal status; null until then",
        ),
        sa.CheckConstraint(
            "(status = 'processing') = (lease_owner IS NOT NULL) AND (status = 'processing') = (lease_until IS NOT NULL) AND (status = 'processing') = (deadline_at IS NOT NULL)",
            name=op.f("jobs_lease_check"),
        ),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("jobs_finished_check"),
        ),
        sa.CheckConstraint(
            "operation IN ('text_to_image', 'image_to_image', 'inpaint')", name=op.f("jobs_operation_check")
        ),
        sa.CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name=op.f("jobs_error_check")),
        sa.CheckConstraint(
            "status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')",
            name=op.f("jobs_status_check"),
        ),
        sa.CheckConstraint(
            "attempt >= 0 AND failures >= 0 AND crashes >= 0 AND max_attempts >= 1",
            name=op.f("jobs_counts_check"),
        ),
        sa.CheckConstraint("progress >= 0 AND progress <= 1", name=op.f("jobs_progress_check")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("jobs_account_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
        sa.UniqueConstraint("output_prefix", name=op.f("jobs_output_prefix_key")),
        comment="Every accepted job, for ever; the row is the job, a Celery message only a wake-up",
    )
    op.create_index("jobs_account_ix", "jobs", ["account_id", sa.literal_column("id DESC")], unique=False)
    op.create_index(
        "jobs_dispatched_ix",
        "jobs",
        ["queue", "dispatched_at"],
        unique=False,
        postgresql_where=sa.text("status = 'queued' AND dispatched_at IS NOT NULL"),
    )
    op.create_index(
        "jobs_due_ix",
        "jobs",
        ["queue", "account_id", sa.literal_column("priority DESC"), "run_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'queued' AND dispatched_at IS NULL"),
    )
    op.create_index(
        "jobs_failed_ix", "jobs", ["finished_at"], unique=False, postgresql_where=sa.text("status = 'failed'")
    )
    op.create_index(
        "jobs_processing_ix",
        "jobs",
        ["queue", "account_id"],
        unique=False,
        postgresql_where=sa.text("status = 'processing'"),
    )


def _create_job_events() -> None:
    op.create_table(
        "job_events",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ascending in the order of writing",
        ),
        sa.Column(
            "job_id",
            sa.Uuid(),
            nullable=False,
            comment="The job; no foreign key, as each row is written by the statement that writes the job",
        ),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it happened",
        ),
        sa.Column("from_status", sa.Text(), nullable=True, comment="Status before; null for the first event"),
        sa.Column("to_status", sa.Text(), nullable=False, comment="Status after"),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="The job's attempt at that time"),
        sa.Column(
            "reason", sa.Text(), nullable=False, comment="submitted, claimed, completed, retry, drained, …"
        ),
        sa.Column("worker", sa.Text(), nullable=True, comment="Worker process concerned, if any"),
        sa.Column(
            "detail",
            postgresql.JSONB(astext_type=Text()),
            nullable=True,
            comment="More about it: error, delay, seconds per stage, traceback",
        ),
        sa.CheckConstraint(
            "reason IN ('submitted', 'claimed', 'completed', 'retry', 'drained', 'lease_lost', 'failed', 'cancelled')",
            name=op.f("job_events_reason_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("job_events_pkey")),
        comment="One row per transition of a job: its timeline",
    )
    op.create_index(op.f("job_events_job_id_ix"), "job_events", ["job_id"], unique=False)


def _create_outputs() -> None:
    op.create_table(
        "outputs",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7; the Realm dialect shows it as img_<hex>"),
        sa.Column("job_id", sa.Uuid(), nullable=False, comment="The job that drew it"),
        sa.Column("account_id", sa.Uuid(), nullable=False, comment="Whose it is"),
        sa.Column(
            "attempt", sa.Integer(), nullable=False, comment="The attempt that drew it: the winning one"
        ),
        sa.Column("index", sa.Integer(), nullable=False, comment="Position within the job, from 0"),
        sa.Column("key", sa.Text(), nullable=False, comment="Key of the object in the S3 store"),
        sa.Column("sha256", sa.Text(), nullable=False, comment="Hash of the object's bytes, hexadecimal"),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="Bytes"),
        sa.Column("width", sa.Integer(), nullable=False, comment="Pixels"),
        sa.Column("height", sa.Integer(), nullable=False, comment="Pixels"),
        sa.Column("format", sa.Text(), nullable=False, comment="png or jpeg"),
        sa.Column("seed", sa.BigInteger(), nullable=False, comment="Seed that reproduces this image alone"),
        sa.Column(
            "state",
            sa.Text(),
            server_default=sa.text("'live'"),
            nullable=False,
            comment="live, purging or purged",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When its job completed",
        ),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Served until then unless persisted; set once, never earlier",
        ),
        sa.Column(
            "persisted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when it is kept for ever; null: it expires",
        ),
        sa.Column(
            "purged_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the object was gone from the store",
        ),
        sa.CheckConstraint("(state = 'purged') = (purged_at IS NOT NULL)", name=op.f("outputs_purged_check")),
        sa.CheckConstraint("format IN ('png', 'jpeg')", name=op.f("outputs_format_check")),
        sa.CheckConstraint("state = 'live' OR persisted_at IS NULL", name=op.f("outputs_persisted_check")),
        sa.CheckConstraint("state IN ('live', 'purging', 'purged')", name=op.f("outputs_state_check")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("outputs_account_id_fkey")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("outputs_job_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("outputs_pkey")),
        sa.UniqueConstraint("job_id", "index", name=op.f("outputs_job_id_index_key")),
        sa.UniqueConstraint("key", name=op.f("outputs_key_key")),
        comment="Images in the store; the row stays after the object is purged",
    )
    op.create_index(
        "outputs_expiring_ix",
        "outputs",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'live' AND persisted_at IS NULL"),
    )
    op.create_index(
        "outputs_purging_ix", "outputs", ["id"], unique=False, postgresql_where=sa.text("state = 'purging'")
    )


def _create_inputs() -> None:
    op.create_table(
        "inputs",
        sa.Column("key", sa.Text(), nullable=False, comment="Key of the object in the S3 store"),
        sa.Column("job_id", sa.Uuid(), nullable=False, comment="The job that reads it"),
        sa.Column("role", sa.Text(), nullable=False, comment="image or mask_image"),
        sa.Column("sha256", sa.Text(), nullable=False, comment="Hash of the object's bytes, hexadecimal"),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="Bytes"),
        sa.Column(
            "state",
            sa.Text(),
            server_default=sa.text("'live'"),
            nullable=False,
            comment="live, purging or purged",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was uploaded",
        ),
        sa.Column(
            "purged_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the object was gone from the store",
        ),
        sa.CheckConstraint("(state = 'purged') = (purged_at IS NOT NULL)", name=op.f("inputs_purged_check")),
        sa.CheckConstraint("role IN ('image', 'mask_image')", name=op.f("inputs_role_check")),
        sa.CheckConstraint("state IN ('live', 'purging', 'purged')", name=op.f("inputs_state_check")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("inputs_job_id_fkey")),
        sa.PrimaryKeyConstraint("key", name=op.f("inputs_pkey")),
        comment="Uploaded input images; purged like outputs, counted from the end of their job",
    )
    op.create_index(
        "inputs_live_ix", "inputs", ["job_id"], unique=False, postgresql_where=sa.text("state = 'live'")
    )
    op.create_index(
        "inputs_purging_ix", "inputs", ["key"], unique=False, postgresql_where=sa.text("state = 'purging'")
    )


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("account_id", sa.Uuid(), nullable=False, comment="Whose key"),
        sa.Column("endpoint", sa.Text(), nullable=False, comment="The operation it was sent to"),
        sa.Column("key", sa.Text(), nullable=False, comment="The Idempotency-Key header"),
        sa.Column(
            "request_sha256",
            sa.LargeBinary(),
            nullable=False,
            comment="Hash of the request it was first sent with",
        ),
        sa.Column("job_id", sa.Uuid(), nullable=False, comment="The job the first request made"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was first sent; honoured for 24 h",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("idempotency_keys_account_id_fkey")
        ),
        sa.PrimaryKeyConstraint("account_id", "endpoint", "key", name=op.f("idempotency_keys_pkey")),
        comment="First use of each Idempotency-Key",
    )
    op.create_index("idempotency_keys_created_at_ix", "idempotency_keys", ["created_at"], unique=False)


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False, comment="host:pid:start, unique per process"),
        sa.Column("queues", postgresql.ARRAY(Text()), nullable=False, comment="Queues it consumes"),
        sa.Column("slots", sa.Integer(), nullable=False, comment="Jobs it can run at a time"),
        sa.Column(
            "busy", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Jobs it runs now"
        ),
        sa.Column(
            "warm_models",
            postgresql.ARRAY(Text()),
            nullable=False,
            comment="Models loaded in memory, newest first",
        ),
        sa.Column("version", sa.Text(), nullable=False, comment="Darkroom version it runs"),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the process started",
        ),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="Its last heartbeat",
        ),
        sa.Column(
            "draining_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when it claims nothing more; null: it works",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("workers_pkey")),
        comment="Worker processes by heartbeat; silent ones are deleted after a day",
    )
    op.create_index("workers_seen_at_ix", "workers", ["seen_at"], unique=False)
