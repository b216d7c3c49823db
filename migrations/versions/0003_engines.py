"""Real engines: targets, batches, warnings and costs of jobs; upstream providers and the calls to them.

The code of the release before runs on the schema this leaves behind: every new column has a default or may
be null.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

REASONS = "'submitted', 'claimed', 'completed', 'retry', 'drained', 'lease_lost', 'failed', 'cancelled'"
ALL_REASONS = (
    "'submitted', 'claimed', 'completed', 'retry', 'deferred', 'rerouted', 'drained', 'lease_lost', 'failed', "
    "'cancelled'"
)


def upgrade() -> None:
    _extend_jobs()
    _replace_check("job_events", "reason", f"reason IN ({ALL_REASONS})")
    _create_provider_state()
    _create_upstream_calls()


def downgrade() -> None:
    op.drop_table("upstream_calls")
    op.drop_table("provider_state")
    op.execute("UPDATE job_events SET reason = 'retry' WHERE reason IN ('deferred', 'rerouted')")
    _replace_check("job_events", "reason", f"reason IN ({REASONS})")
    op.drop_index("jobs_batch_ix", table_name="jobs")
    for column in ("cost", "warnings", "tried", "batch_key", "target_model"):
        op.drop_column("jobs", column)


def _replace_check(table: str, name: str, condition: str) -> None:
    op.drop_constraint(op.f(f"{table}_{name}_check"), table)
    op.create_check_constraint(op.f(f"{table}_{name}_check"), table, condition)


def _extend_jobs() -> None:
    columns: tuple[sa.Column[Any], ...] = (
        sa.Column(
            "target_model",
            Text(),
            comment="The provider's own name for the model; null: before migration 0003",
        ),
        sa.Column(
            "batch_key",
            Text(),
            comment="Jobs that share it may be drawn in one call; null: it is drawn alone",
        ),
        sa.Column(
            "tried",
            postgresql.ARRAY(Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Targets that failed it and that it was moved away from, as provider/model",
        ),
        sa.Column(
            "warnings",
            postgresql.JSONB(),
            comment="Sentences on parameters that were changed or had no effect; null: none",
        ),
        sa.Column(
            "cost", sa.Numeric(12, 6), comment="What its provider charges, by the catalogue; null: unknown"
        ),
    )
    for column in columns:
        op.add_column("jobs", column)
    op.create_index(
        "jobs_batch_ix",
        "jobs",
        ["batch_key", "account_id", sa.text("priority DESC"), "run_at", "id"],
        postgresql_where=sa.text("status = 'queued' AND batch_key IS NOT NULL"),
    )


def _moment(name: str, comment: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), comment=comment, **options)


def _create_provider_state() -> None:
    zero = sa.text("0")
    op.create_table(
        "provider_state",
        sa.Column("name", Text(), nullable=False, comment="The upstream, as the catalogue calls it"),
        sa.Column(
            "failures", sa.Integer(), server_default=zero, nullable=False, comment="Failed calls in a row"
        ),
        sa.Column(
            "openings",
            sa.Integer(),
            server_default=zero,
            nullable=False,
            comment="Times its breaker opened in a row",
        ),
        _moment("opened_until", "Until when its breaker lets nothing through, then one probe; null: closed"),
        _moment("paused_until", "Until when it asked not to be called (Retry-After); null: never did"),
        _moment("next_call_at", "When its rate limit lets the next paid call go; null: none was made"),
        sa.Column("reason", Text(), comment="What its last failure was"),
        _moment("failed_at", "Its last failure"),
        _moment("succeeded_at", "Its last success"),
        sa.CheckConstraint("failures >= 0 AND openings >= 0", name=op.f("provider_state_counts_check")),
        sa.PrimaryKeyConstraint("name", name=op.f("provider_state_pkey")),
        comment="How upstream providers are doing, for all workers and the relay; a row per upstream",
    )


def _create_upstream_calls() -> None:
    op.create_table(
        "upstream_calls",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column(
            "job_id",
            sa.Uuid(),
            nullable=False,
            comment="The job; no foreign key, so that a call is never held up by its row",
        ),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="The attempt that made it"),
        sa.Column("provider", Text(), nullable=False, comment="The upstream it was made to"),
        sa.Column(
            "first_index", sa.Integer(), nullable=False, comment="Position of its first image within the job"
        ),
        sa.Column("images", sa.Integer(), nullable=False, comment="Images it asks for"),
        sa.Column(
            "reference",
            Text(),
            nullable=False,
            comment="Our word for it, sent along; the same for each attempt",
        ),
        sa.Column(
            "state", Text(), nullable=False, comment="sending, accepted, completed, refused, failed, unknown"
        ),
        sa.Column(
            "upstream_id",
            Text(),
            comment="The provider's word for it; null: it has none, or has not answered",
        ),
        sa.Column("detail", postgresql.JSONB(), comment="What else is needed to ask for it again"),
        sa.Column(
            "cost",
            sa.Numeric(12, 6),
            comment="What it costs, by the catalogue; null: unknown, or not charged",
        ),
        sa.Column("error", Text(), comment="Why it brought nothing"),
        _moment("created_at", "Right before it was sent", server_default=sa.text("now()"), nullable=False),
        _moment("accepted_at", "When the provider had taken it"),
        _moment("ended_at", "When its images were there, or it had failed"),
        sa.CheckConstraint(
            "state IN ('sending', 'accepted', 'completed', 'refused', 'failed', 'unknown')",
            name=op.f("upstream_calls_state_check"),
        ),
        sa.CheckConstraint(
            "state <> 'accepted' OR upstream_id IS NOT NULL", name=op.f("upstream_calls_accepted_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("upstream_calls_pkey")),
        comment="Every call to an upstream provider that may cost something, written before it is made",
    )
    op.create_index("upstream_calls_job_ix", "upstream_calls", ["job_id", "first_index", "created_at"])
    op.create_index(
        "upstream_calls_open_ix",
        "upstream_calls",
        ["provider"],
        postgresql_where=sa.text("state IN ('sending', 'accepted')"),
    )
