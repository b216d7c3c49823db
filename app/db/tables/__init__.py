"""Every table and column of schema `public`, each with a comment that psql shows.

The migrations are the truth of a running database; a test holds these definitions equal to it.
Text with a named CHECK instead of enums: a CHECK can drop a value, an enum cannot.
"""

from app.db.tables import buckets, core, upstreams, webhooks
from app.db.tables.base import metadata, one_of

__all__ = ["buckets", "core", "metadata", "one_of", "upstreams", "webhooks"]
