"""The columns and tables of all five dialects: webhooks, customers' own buckets, the image library.

The code of the release before runs on the schema this leaves behind: every new column has a default or may
be null, and each CHECK allows what it allowed.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OPERATIONS = (
    "'text_to_image', 'image_to_image', 'inpaint', 'resize', 'crop', 'rotate', 'mirror', 'convert', 'blur', "
    "'modulate', 'watermark', 'remove_background', 'import'"
)
DRAWING_OPERATIONS = "'text_to_image', 'image_to_image', 'inpaint'"
OWE_DELIVERIES = """
CREATE FUNCTION owe_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deliveries (account_id, endpoint_id, job_id, event, status, finished_at, last_error)
    SELECT NEW.account_id, e.id, NEW.id, 'job.' || NEW.status,
           CASE WHEN e.disabled_at IS NULL THEN 'pending' ELSE 'failed' END,
           CASE WHEN e.disabled_at IS NOT NULL THEN now() END,
           CASE WHEN e.disabled_at IS NOT NULL THEN 'the endpoint is disabled: ' || e.disabled_reason END
    FROM (
        -- Neither an OR nor, in the second part, an account that an index can be asked for: a plan made while
        -- there were few endpoints would read all that the account has, and its requests may have named a
        -- hundred thousand.
        SELECT * FROM webhook_endpoints WHERE account_id = NEW.account_id AND scope = 'account'
        UNION ALL
        SELECT * FROM webhook_endpoints
        WHERE id = NEW.webhook_endpoint_id AND (account_id = NEW.account_id AND scope <> 'account') IS TRUE
    ) AS e
    WHERE 'job.' || NEW.status = ANY (e.events);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION owe_deliveries() IS
    'Owes each endpoint that wants to know a delivery in the very transaction that changes the status';
CREATE TRIGGER jobs_owe_deliveries AFTER UPDATE OF status ON jobs FOR EACH ROW
    WHEN (NEW.status <> OLD.status AND NEW.status <> 'queued')
    EXECUTE FUNCTION owe_deliveries();
"""


def upgrade() -> None:
    _create_storage_targets()
    _create_webhooks()
    _extend_keys()
    _extend_jobs()
    _extend_outputs()
    op.execute("CREATE SEQUENCE job_numbers START 100001")
    op.execute("COMMENT ON SEQUENCE job_numbers IS 'Integer ids for the dialects that show some'")
    op.execute(OWE_DELIVERIES)


def downgrade() -> None:
    op.execute("DROP TRIGGER jobs_owe_deliveries ON jobs")
    op.execute("DROP FUNCTION owe_deliveries()")
    op.execute("DROP SEQUENCE job_numbers")
    _reduce_outputs()
    _reduce_jobs()
    op.drop_index("idempotency_keys_expires_at_ix", table_name="idempotency_keys")
    op.drop_column("idempotency_keys", "expires_at")
    op.create_index("idempotency_keys_created_at_ix", "idempotency_keys", ["created_at"])
    op.alter_column("idempotency_keys", "created_at", comment="When it was first sent; honoured for 24 h")
    op.drop_column("api_keys", "test")
    for table in ("delivery_attempts", "deliveries", "webhook_endpoints", "storage_targets"):
        op.drop_table(table)


def _replace_check(table: str, name: str, condition: str) -> None:
    op.drop_constraint(op.f(f"{table}_{name}_check"), table)
    op.create_check_constraint(op.f(f"{table}_{name}_check"), table, condition)


def _create_storage_targets() -> None:
    op.create_table(
        "storage_targets",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column("account_id", sa.Uuid(), nullable=False, comment="Whose bucket"),
        sa.Column(
            "deploy_type",
            sa.Text(),
            nullable=False,
            comment="Which of ModelsLab's servers it is for; Darkroom's jobs use realtime",
        ),
        sa.Column(
            "endpoint_url",
            sa.Text(),
            nullable=False,
            comment="Address of the bucket: its name in the host or as path",
        ),
        sa.Column("region", sa.Text(), nullable=False, comment="Region named in signatures"),
        sa.Column("bucket", sa.Text(), nullable=False, comment="Name of the bucket"),
        sa.Column(
            "directory", sa.Text(), nullable=False, comment="Prefix of the keys, without slashes at its ends"
        ),
        sa.Column(
            "public_url", sa.Text(), nullable=False, comment="Base URL under which the bucket is public"
        ),
        sa.Column(
            "credentials",
            sa.Text(),
            nullable=True,
            comment="Access key and secret key, encrypted; null once not needed",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was set and a probe was written to it",
        ),
        sa.Column(
            "removed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was reset or replaced; null: in use",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("storage_targets_account_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("storage_targets_pkey")),
        comment="Customers' own buckets, newest details per account and server type",
    )
    op.create_index(
        "storage_targets_current_ix",
        "storage_targets",
        ["account_id", "deploy_type"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )


def _create_webhooks() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7; shown as we_<hex>"),
        sa.Column("account_id", sa.Uuid(), nullable=False, comment="Whose"),
        sa.Column("url", sa.Text(), nullable=False, comment="Where deliveries are posted to"),
        sa.Column(
            "form",
            sa.Text(),
            nullable=False,
            comment="Whose words the bodies speak: jobs, modelslab or realm",
        ),
        sa.Column(
            "scope",
            sa.Text(),
            nullable=False,
            comment="account: told of all its jobs; request: of those whose requests named the URL",
        ),
        sa.Column("events", postgresql.ARRAY(Text()), nullable=False, comment="Events it is told of"),
        sa.Column("secret", sa.Text(), nullable=False, comment="Signing secret, encrypted"),
        sa.Column(
            "previous_secret",
            sa.Text(),
            nullable=True,
            comment="The one before, encrypted; signs too until previous_until",
        ),
        sa.Column(
            "previous_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Until when the previous secret signs; null: there is none",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was first named",
        ),
        sa.Column(
            "disabled_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when nothing is sent to it; null: active",
        ),
        sa.Column("disabled_reason", sa.Text(), nullable=True, comment="Why nothing is sent to it"),
        sa.Column(
            "failures",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Deliveries in a row that failed",
        ),
        sa.Column(
            "opened_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Breaker: nothing is sent before this time; null: closed",
        ),
        sa.CheckConstraint(
            "form IN ('jobs', 'modelslab', 'realm')", name=op.f("webhook_endpoints_form_check")
        ),
        sa.CheckConstraint("scope IN ('account', 'request')", name=op.f("webhook_endpoints_scope_check")),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL)", name=op.f("webhook_endpoints_disabled_check")
        ),
        sa.CheckConstraint(
            "(previous_secret IS NULL) = (previous_until IS NULL)",
            name=op.f("webhook_endpoints_previous_check"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("webhook_endpoints_account_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_endpoints_pkey")),
        sa.UniqueConstraint(
            "account_id", "scope", "form", "url", name=op.f("webhook_endpoints_account_id_scope_form_url_key")
        ),
        comment="Addresses that customers want to be told at",
    )
    op.create_table(
        "deliveries",
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="Shown as msg_<hex>: the webhook-id, the same for every try",
        ),
        sa.Column("account_id", sa.Uuid(), nullable=False, comment="Whose"),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False, comment="Where to"),
        sa.Column("job_id", sa.Uuid(), nullable=True, comment="The job it tells of; null: a test"),
        sa.Column("event", sa.Text(), nullable=False, comment="job.completed, job.failed, …, test"),
        sa.Column(
            "status",
            sa.Text(),
            server_default=sa.text("'pending'"),
            nullable=False,
            comment="See DeliveryStatus",
        ),
        sa.Column(
            "body", sa.Text(), nullable=True, comment="What is posted, to the byte; made by the first try"
        ),
        sa.Column(
            "attempts",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Tries so far; the fence of every statement a worker makes",
        ),
        sa.Column(
            "attempts_before_replay",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Tries made before its latest replay; the schedule counts the later ones",
        ),
        sa.Column(
            "run_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="Not before this time",
        ),
        sa.Column(
            "dispatched_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When relay sent a wake-up; null: not released",
        ),
        sa.Column(
            "lease_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Until when a worker is believed to be posting it; null: none is",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the event happened",
        ),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was delivered or given up; null until then",
        ),
        sa.Column(
            "last_status",
            sa.Integer(),
            nullable=True,
            comment="HTTP status of the last answer; null: there was none",
        ),
        sa.Column("last_error", sa.Text(), nullable=True, comment="Why the last try failed"),
        sa.CheckConstraint(
            "(status = 'pending') = (finished_at IS NULL)", name=op.f("deliveries_finished_check")
        ),
        sa.CheckConstraint(
            "event IN ('job.processing', 'job.completed', 'job.failed', 'job.cancelled', 'test')",
            name=op.f("deliveries_event_check"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed')", name=op.f("deliveries_status_check")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("deliveries_account_id_fkey")),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoints.id"], name=op.f("deliveries_endpoint_id_fkey")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("deliveries_job_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("deliveries_pkey")),
        comment="Webhooks owed to customers: one row per event and endpoint",
    )
    op.create_index(
        "deliveries_account_ix",
        "deliveries",
        ["account_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "deliveries_dispatched_ix",
        "deliveries",
        ["endpoint_id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND dispatched_at IS NOT NULL"),
    )
    op.create_index(
        "deliveries_due_ix",
        "deliveries",
        ["endpoint_id", "run_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND dispatched_at IS NULL"),
    )
    op.create_index(
        "deliveries_endpoint_ix",
        "deliveries",
        ["endpoint_id", sa.literal_column("created_at DESC")],
        unique=False,
    )
    op.create_index("deliveries_job_ix", "deliveries", ["job_id"], unique=False)
    op.create_table(
        "delivery_attempts",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ascending in the order of writing",
        ),
        sa.Column("delivery_id", sa.Uuid(), nullable=False, comment="Of which"),
        sa.Column("number", sa.Integer(), nullable=False, comment="Which try, from 1"),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it began",
        ),
        sa.Column("seconds", sa.REAL(), nullable=False, comment="How long the exchange took"),
        sa.Column(
            "status_code",
            sa.Integer(),
            nullable=True,
            comment="HTTP status of the answer; null: there was none",
        ),
        sa.Column("error", sa.Text(), nullable=True, comment="Why it failed; null: it was delivered"),
        sa.Column("response", sa.Text(), nullable=True, comment="The first kilobyte of the answer's body"),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("delivery_attempts_delivery_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("delivery_attempts_pkey")),
        comment="Every try of every delivery",
    )
    op.create_index(
        op.f("delivery_attempts_delivery_id_ix"), "delivery_attempts", ["delivery_id"], unique=False
    )


def _extend_keys() -> None:
    op.add_column(
        "api_keys",
        sa.Column(
            "test",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether it begins with test_: what it makes is watermarked and kept apart",
        ),
    )
    op.add_column(
        "idempotency_keys",
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now() + interval '24 hours'"),
            nullable=False,
            comment="Until when it is honoured",
        ),
    )
    op.alter_column(
        "idempotency_keys",
        "created_at",
        existing_type=postgresql.TIMESTAMP(timezone=True),
        comment="When it was first sent",
        existing_comment="When it was first sent; honoured for 24 h",
        existing_nullable=False,
        existing_server_default=sa.text("now()"),
    )
    op.drop_index(op.f("idempotency_keys_created_at_ix"), table_name="idempotency_keys")
    op.create_index("idempotency_keys_expires_at_ix", "idempotency_keys", ["expires_at"], unique=False)


def _extend_jobs() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "number",
            sa.BigInteger(),
            nullable=True,
            comment="Integer id where the dialect shows one (modelslab); else null",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "test",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether a test key submitted it",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column("track_id", sa.Text(), nullable=True, comment="The caller's own word for it; not unique"),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "webhook_endpoint_id",
            sa.Uuid(),
            nullable=True,
            comment="Where the request itself wanted its end told; null: nowhere",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "base_url",
            sa.Text(),
            nullable=True,
            comment="Base URL it was submitted under, for links in what we send later",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "storage_target_id",
            sa.Uuid(),
            nullable=True,
            comment="The customer's bucket that its outputs go to; null: only ours",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "retain_seconds",
            sa.Integer(),
            nullable=True,
            comment="How long its outputs are served; null: DARKROOM_RETENTION",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "persist",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether its outputs never expire",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "access",
            sa.Text(),
            server_default=sa.text("'link'"),
            nullable=False,
            comment="Who may fetch its outputs at first: link or private; see outputs.access",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "name", sa.Text(), nullable=True, comment="Name of the image it makes (imgprocessing); null: none"
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "echo",
            postgresql.JSONB(astext_type=Text()),
            nullable=True,
            comment="What the dialect shows again in its answers; never holds an API key",
        ),
    )
    op.add_column(
        "jobs", sa.Column("retry_of", sa.Uuid(), nullable=True, comment="The ended job that this one repeats")
    )
    op.add_column(
        "jobs",
        sa.Column(
            "stage",
            sa.Text(),
            nullable=True,
            comment="What the running attempt is at: loading, generating, storing",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "step", sa.Integer(), nullable=True, comment="Step it has finished, of steps; null while unknown"
        ),
    )
    op.add_column(
        "jobs",
        sa.Column("steps", sa.Integer(), nullable=True, comment="Steps of the whole job; null while unknown"),
    )
    op.alter_column(
        "jobs",
        "operation",
        existing_type=sa.TEXT(),
        comment="What is done: text_to_image, inpaint, resize, …",
        existing_comment="text_to_image, image_to_image or inpaint",
        existing_nullable=False,
    )
    op.create_index(
        "jobs_number_ix", "jobs", ["number"], unique=True, postgresql_where=sa.text("number IS NOT NULL")
    )
    op.create_index(
        "jobs_track_ix",
        "jobs",
        ["account_id", "track_id", sa.literal_column("id DESC")],
        unique=False,
        postgresql_where=sa.text("track_id IS NOT NULL"),
    )
    op.create_foreign_key(
        op.f("jobs_storage_target_id_fkey"), "jobs", "storage_targets", ["storage_target_id"], ["id"]
    )
    op.create_foreign_key(
        op.f("jobs_webhook_endpoint_id_fkey"), "jobs", "webhook_endpoints", ["webhook_endpoint_id"], ["id"]
    )
    op.create_foreign_key(op.f("jobs_retry_of_fkey"), "jobs", "jobs", ["retry_of"], ["id"])
    _replace_check("jobs", "operation", f"operation IN ({OPERATIONS})")
    op.create_check_constraint(op.f("jobs_access_check"), "jobs", "access IN ('link', 'private')")
    op.create_check_constraint(op.f("jobs_retain_seconds_check"), "jobs", "retain_seconds > 0")


def _extend_outputs() -> None:
    op.alter_column(
        "inputs",
        "role",
        existing_type=sa.TEXT(),
        comment="image, mask_image or watermark_<n>",
        existing_comment="image or mask_image",
        existing_nullable=False,
    )
    op.add_column(
        "outputs",
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its owner deleted it; null: not, or it expired",
        ),
    )
    op.add_column(
        "outputs",
        sa.Column(
            "name", sa.Text(), nullable=True, comment="Name its owner gave it; null: not in the image library"
        ),
    )
    op.add_column(
        "outputs",
        sa.Column(
            "test",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether a test key made it",
        ),
    )
    op.add_column(
        "outputs",
        sa.Column(
            "access",
            sa.Text(),
            server_default=sa.text("'link'"),
            nullable=False,
            comment="Who may fetch it: link (whoever has the URL), private (its account) or public",
        ),
    )
    op.add_column(
        "outputs",
        sa.Column(
            "published_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when it is public; null: it is not",
        ),
    )
    op.add_column(
        "outputs",
        sa.Column(
            "flagged",
            sa.Boolean(),
            nullable=True,
            comment="What the safety checker found; null: it was not checked",
        ),
    )
    op.add_column(
        "outputs",
        sa.Column(
            "copy_state",
            sa.Text(),
            nullable=True,
            comment="Its copy in the customer's bucket: pending, copied or given_up",
        ),
    )
    op.add_column(
        "outputs",
        sa.Column(
            "copy_url", sa.Text(), nullable=True, comment="Where the customer's bucket shows it, once copied"
        ),
    )
    op.add_column(
        "outputs",
        sa.Column(
            "copy_attempts",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Tries to copy it so far",
        ),
    )
    op.add_column(
        "outputs",
        sa.Column(
            "copy_run_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the next try to copy it is due; null: none is",
        ),
    )
    op.add_column(
        "outputs",
        sa.Column("copy_error", sa.Text(), nullable=True, comment="Why the last try to copy it failed"),
    )
    op.alter_column(
        "outputs",
        "format",
        existing_type=sa.TEXT(),
        comment="png, jpeg or webp",
        existing_comment="png or jpeg",
        existing_nullable=False,
    )
    op.create_index(
        "outputs_copying_ix",
        "outputs",
        ["copy_run_at"],
        unique=False,
        postgresql_where=sa.text("copy_state = 'pending'"),
    )
    op.create_index(
        "outputs_library_ix",
        "outputs",
        ["account_id", "test", sa.literal_column("id DESC")],
        unique=False,
        postgresql_where=sa.text("state = 'live' AND name IS NOT NULL"),
    )
    _replace_check("inputs", "role", "role IN ('image', 'mask_image') OR role LIKE 'watermark_%'")
    _replace_check("outputs", "format", "format IN ('png', 'jpeg', 'webp')")
    for name, condition in (
        ("access", "access IN ('link', 'private', 'public')"),
        ("published", "(access = 'public') = (published_at IS NOT NULL)"),
        ("copy_state", "copy_state IN ('pending', 'copied', 'given_up')"),
        ("copy_url", "(copy_state = 'copied') = (copy_url IS NOT NULL)"),
    ):
        op.create_check_constraint(op.f(f"outputs_{name}_check"), "outputs", condition)


def _reduce_jobs() -> None:
    """What the release before cannot name must be gone first: a CHECK refuses rows of transformations."""
    for column in (
        "retry_of",
        "steps",
        "step",
        "stage",
        "echo",
        "name",
        "access",
        "persist",
        "retain_seconds",
        "storage_target_id",
        "base_url",
        "webhook_endpoint_id",
        "track_id",
        "test",
        "number",
    ):
        op.drop_column("jobs", column)
    _replace_check("jobs", "operation", f"operation IN ({DRAWING_OPERATIONS})")
    op.alter_column("jobs", "operation", comment="text_to_image, image_to_image or inpaint")


def _reduce_outputs() -> None:
    for column in (
        "copy_error",
        "copy_run_at",
        "copy_attempts",
        "copy_url",
        "copy_state",
        "flagged",
        "published_at",
        "access",
        "test",
        "name",
        "deleted_at",
    ):
        op.drop_column("outputs", column)
    _replace_check("outputs", "format", "format IN ('png', 'jpeg')")
    op.alter_column("outputs", "format", comment="png or jpeg")
    _replace_check("inputs", "role", "role IN ('image', 'mask_image')")
    op.alter_column("inputs", "role", comment="image or mask_image")
