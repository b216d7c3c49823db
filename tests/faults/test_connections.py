"""Connections that the server closed while nobody used them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

from app.db import Database, connect
from app.settings import Settings

WAYS: dict[str, Callable[[Database], AbstractContextManager[Any]]] = {
    "autocommit": Database.autocommit,
    "transaction": Database.transaction,
    "raw": Database.raw,
}
POOL = 4


def hold_all(pool: Database, way: str) -> list[int]:
    """Take every connection of the pool at a time; gives their servers' pids."""
    with ExitStack() as held:
        taken = [held.enter_context(WAYS[way](pool)) for _ in range(POOL)]
        return [_ask(connection) for connection in taken]


def _ask(connection: Any) -> int:
    statement = "SELECT pg_backend_pid()"
    ask = connection.execute if hasattr(connection, "pgconn") else connection.exec_driver_sql
    return int(ask(statement).fetchone()[0])


@pytest.mark.parametrize("way", WAYS)
def test_connections_that_the_server_closed_are_replaced_unnoticed(
    settings: Settings, database: Database, way: str
) -> None:
    pool = connect(settings, pool_size=POOL)
    before = hold_all(pool, way)
    with database.autocommit() as tx:
        tx.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM unnest(%(pids)s::int[]) AS pid", {"pids": before}
        )
    after = hold_all(pool, way)
    pool.close()
    assert len(set(after)) == POOL
    assert set(after).isdisjoint(before)
