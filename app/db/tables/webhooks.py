"""Webhooks: where customers want to be told, what they are owed, and every try to tell them."""

from typing import Final

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    desc,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.tables.base import NOW, ZERO, metadata, moment, one_of
from app.domain.webhook import DeliveryStatus, Event, Form, Scope

webhook_endpoints: Final = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7; shown as we_<hex>"),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, comment="Whose"),
    Column("url", Text, nullable=False, comment="Where deliveries are posted to"),
    Column("form", Text, nullable=False, comment="Whose words the bodies speak: jobs, modelslab or realm"),
    Column(
        "scope",
        Text,
        nullable=False,
        comment="account: told of all its jobs; request: of those whose requests named the URL",
    ),
    Column("events", ARRAY(Text), nullable=False, comment="Events it is told of"),
    Column("secret", Text, nullable=False, comment="Signing secret, encrypted"),
    Column("previous_secret", Text, comment="The one before, encrypted; signs too until previous_until"),
    moment("previous_until", "Until when the previous secret signs; null: there is none"),
    moment("created_at", "When it was first named", nullable=False, server_default=NOW),
    moment("disabled_at", "Since when nothing is sent to it; null: active"),
    Column("disabled_reason", Text, comment="Why nothing is sent to it"),
    Column(
        "failures",
        Integer,
        nullable=False,
        server_default=ZERO,
        comment="Deliveries in a row that failed",
    ),
    moment("opened_until", "Breaker: nothing is sent before this time; null: closed"),
    UniqueConstraint("account_id", "scope", "form", "url"),
    CheckConstraint(one_of("form", Form), name="form"),
    CheckConstraint(one_of("scope", Scope), name="scope"),
    CheckConstraint("(previous_secret IS NULL) = (previous_until IS NULL)", name="previous"),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled"),
    comment="Addresses that customers want to be told at",
)

deliveries: Final = Table(
    "deliveries",
    metadata,
    Column(
        "id",
        Uuid,
        primary_key=True,
        server_default=text("gen_random_uuid()"),
        comment="Shown as msg_<hex>: the webhook-id, the same for every try",
    ),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, comment="Whose"),
    Column("endpoint_id", ForeignKey("webhook_endpoints.id"), nullable=False, comment="Where to"),
    Column("job_id", ForeignKey("jobs.id"), comment="The job it tells of; null: a test"),
    Column("event", Text, nullable=False, comment="job.completed, job.failed, …, test"),
    Column("status", Text, nullable=False, server_default=text("'pending'"), comment="See DeliveryStatus"),
    Column("body", Text, comment="What is posted, to the byte; made by the first try"),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default=ZERO,
        comment="Tries so far; the fence of every statement a worker makes",
    ),
    Column(
        "attempts_before_replay",
        Integer,
        nullable=False,
        server_default=ZERO,
        comment="Tries made before its latest replay; the schedule counts the later ones",
    ),
    moment("run_at", "Not before this time", nullable=False, server_default=NOW),
    moment("dispatched_at", "When relay sent a wake-up; null: not released"),
    moment("lease_until", "Until when a worker is believed to be posting it; null: none is"),
    moment("created_at", "When the event happened", nullable=False, server_default=NOW),
    moment("finished_at", "When it was delivered or given up; null until then"),
    Column("last_status", Integer, comment="HTTP status of the last answer; null: there was none"),
    Column("last_error", Text, comment="Why the last try failed"),
    CheckConstraint(one_of("event", Event), name="event"),
    CheckConstraint(one_of("status", DeliveryStatus), name="status"),
    CheckConstraint("(status = 'pending') = (finished_at IS NULL)", name="finished"),
    Index(
        "deliveries_due_ix",
        "endpoint_id",
        "run_at",
        postgresql_where=text("status = 'pending' AND dispatched_at IS NULL"),
    ),
    Index(
        "deliveries_dispatched_ix",
        "endpoint_id",
        postgresql_where=text("status = 'pending' AND dispatched_at IS NOT NULL"),
    ),
    Index("deliveries_account_ix", "account_id", desc("created_at"), desc("id")),
    Index("deliveries_endpoint_ix", "endpoint_id", desc("created_at")),
    Index("deliveries_job_ix", "job_id"),
    comment="Webhooks owed to customers: one row per event and endpoint",
)

delivery_attempts: Final = Table(
    "delivery_attempts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True, comment="Ascending in the order of writing"),
    Column("delivery_id", ForeignKey("deliveries.id"), nullable=False, index=True, comment="Of which"),
    Column("number", Integer, nullable=False, comment="Which try, from 1"),
    moment("at", "When it began", nullable=False, server_default=NOW),
    Column("seconds", REAL, nullable=False, comment="How long the exchange took"),
    Column("status_code", Integer, comment="HTTP status of the answer; null: there was none"),
    Column("error", Text, comment="Why it failed; null: it was delivered"),
    Column("response", Text, comment="The first kilobyte of the answer's body"),
    comment="Every try of every delivery",
)
