"""Upstream providers: their state, shared by all workers, and every call that may cost something."""

from typing import Final

from sqlalchemy import CheckConstraint, Column, Index, Integer, Numeric, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from app.db.tables.base import NOW, ZERO, metadata, moment, one_of
from app.domain.calls import CallState

provider_state: Final = Table(
    "provider_state",
    metadata,
    Column("name", Text, primary_key=True, comment="The upstream, as the catalogue calls it"),
    Column("failures", Integer, nullable=False, server_default=ZERO, comment="Failed calls in a row"),
    Column(
        "openings", Integer, nullable=False, server_default=ZERO, comment="Times its breaker opened in a row"
    ),
    moment("opened_until", "Until when its breaker lets nothing through, then one probe; null: closed"),
    moment("paused_until", "Until when it asked not to be called (Retry-After); null: never did"),
    moment("next_call_at", "When its rate limit lets the next paid call go; null: none was made"),
    Column("reason", Text, comment="What its last failure was"),
    moment("failed_at", "Its last failure"),
    moment("succeeded_at", "Its last success"),
    CheckConstraint("failures >= 0 AND openings >= 0", name="counts"),
    comment="How upstream providers are doing, for all workers and the relay; a row per upstream",
)

upstream_calls: Final = Table(
    "upstream_calls",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column(
        "job_id",
        Uuid,
        nullable=False,
        comment="The job; no foreign key, so that a call is never held up by its row",
    ),
    Column("attempt", Integer, nullable=False, comment="The attempt that made it"),
    Column("provider", Text, nullable=False, comment="The upstream it was made to"),
    Column("first_index", Integer, nullable=False, comment="Position of its first image within the job"),
    Column("images", Integer, nullable=False, comment="Images it asks for"),
    Column(
        "reference", Text, nullable=False, comment="Our word for it, sent along; the same for each attempt"
    ),
    Column("state", Text, nullable=False, comment="sending, accepted, completed, refused, failed, unknown"),
    Column("upstream_id", Text, comment="The provider's word for it; null: it has none, or has not answered"),
    Column("detail", JSONB, comment="What else is needed to ask for it again"),
    Column("cost", Numeric(12, 6), comment="What it costs, by the catalogue; null: unknown, or not charged"),
    Column("error", Text, comment="Why it brought nothing"),
    moment("created_at", "Right before it was sent", nullable=False, server_default=NOW),
    moment("accepted_at", "When the provider had taken it"),
    moment("ended_at", "When its images were there, or it had failed"),
    CheckConstraint(one_of("state", CallState), name="state"),
    CheckConstraint("state <> 'accepted' OR upstream_id IS NOT NULL", name="accepted"),
    Index("upstream_calls_job_ix", "job_id", "first_index", "created_at"),
    Index("upstream_calls_open_ix", "provider", postgresql_where=text("state IN ('sending', 'accepted')")),
    comment="Every call to an upstream provider that may cost something, written before it is made",
)
