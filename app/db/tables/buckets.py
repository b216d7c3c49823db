"""Customers' own buckets."""

from typing import Final

from sqlalchemy import Column, ForeignKey, Index, Table, Text, Uuid, text

from app.db.tables.base import NOW, metadata, moment

storage_targets: Final = Table(
    "storage_targets",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, comment="Whose bucket"),
    Column(
        "deploy_type",
        Text,
        nullable=False,
        comment="Which of ModelsLab's servers it is for; Darkroom's jobs use realtime",
    ),
    Column(
        "endpoint_url", Text, nullable=False, comment="Address of the bucket: its name in the host or as path"
    ),
    Column("region", Text, nullable=False, comment="Region named in signatures"),
    Column("bucket", Text, nullable=False, comment="Name of the bucket"),
    Column("directory", Text, nullable=False, comment="Prefix of the keys, without slashes at its ends"),
    Column("public_url", Text, nullable=False, comment="Base URL under which the bucket is public"),
    Column("credentials", Text, comment="Access key and secret key, encrypted; null once not needed"),
    moment("created_at", "When it was set and a probe was written to it", nullable=False, server_default=NOW),
    moment("removed_at", "When it was reset or replaced; null: in use"),
    Index(
        "storage_targets_current_ix",
        "account_id",
        "deploy_type",
        unique=True,
        postgresql_where=text("removed_at IS NULL"),
    ),
    comment="Customers' own buckets, newest details per account and server type",
)
