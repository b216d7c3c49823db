"""The columns that hold encrypted secrets, all of them: what a change of keys must go through."""

from collections.abc import Callable
from typing import Final

from sqlalchemy.engine import Connection

SEALED: Final = (
    ("webhook_endpoints", "secret"),
    ("webhook_endpoints", "previous_secret"),
    ("storage_targets", "credentials"),
)
"""Table and column."""


def change_all(tx: Connection, change: Callable[[str], str]) -> int:
    """Replace every encrypted secret by what `change` gives for it; gives how many there are."""
    count = 0
    for table, column in SEALED:
        rows = tx.exec_driver_sql(f"SELECT id, {column} FROM {table} WHERE {column} IS NOT NULL FOR UPDATE")
        for key, token in rows.all():
            tx.exec_driver_sql(
                f"UPDATE {table} SET {column} = %(token)s WHERE id = %(id)s",
                {"id": key, "token": change(token)},
            )
            count += 1
    return count
