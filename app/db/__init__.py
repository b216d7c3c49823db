"""The way to Postgres: one engine per process, transactions, and the translation of its failures.

Statements live beside this file, grouped by what they are about; each takes an open `Connection`, so that
whoever opened the transaction decides what belongs together. They are written as SQL for psycopg
(`%(name)s`) and run through `Connection.exec_driver_sql`, which spares the hot paths SQLAlchemy's compiler.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import psycopg
import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import DatabaseDown
from app.settings import Settings

_GONE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, exc.DisconnectionError)
_NEW: Final = "darkroom: made just now"


_KEEPALIVE: Final[dict[str, Any]] = {
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
}
"""A host that vanished is noticed after 10 to 25 s instead of the kernel's quarter hour. Not a server that
is frozen while its host goes on acknowledging: that one blocks whoever waits for it."""


class Database:
    """Connections to one Postgres database; thread-safe, opens nothing until it is used.

    Args:
        url: postgresql://user:password@host:port/name
        pool_size: most connections at a time; a caller beyond it waits up to `pool_wait`, then DatabaseDown.
        statement_timeout: longest a single statement may take on the server.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        pool_wait: timedelta = timedelta(seconds=5),
        statement_timeout: timedelta = timedelta(seconds=30),
        application_name: str = "darkroom",
    ) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._engine = sqlalchemy.create_engine(
            self._url,
            pool_size=pool_size,
            max_overflow=0,
            hide_parameters=True,  # an error's text goes to the log, and prompts are nobody's business there
            pool_timeout=pool_wait.total_seconds(),
            pool_use_lifo=True,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "connect_timeout": 3,
                "application_name": application_name,
                # Compiling a plan (jit) takes longer than any of our statements runs.
                "options": f"-c jit=off -c statement_timeout={int(statement_timeout.total_seconds() * 1000)}",
                **_KEEPALIVE,
            },
        )
        sqlalchemy.event.listen(self._engine, "connect", _note_as_new)
        sqlalchemy.event.listen(self._engine, "checkout", _replace_closed)

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Give a connection on which each statement is its own transaction.

        Raises:
            DatabaseDown: Postgres cannot be reached, or went away during the statement.
        """
        with translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection inside one transaction: committed at the end, rolled back on an exception.

        Raises:
            DatabaseDown: Postgres cannot be reached or went away. At the commit that leaves open whether
                it happened: a caller to whom that matters reads again.
        """
        with translated(), self._engine.connect() as connection:
            connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                yield connection

    @contextmanager
    def raw(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Give the driver's own connection, in autocommit: for the door, where each 0.1 ms counts."""
        with translated():
            connection = self._engine.raw_connection()
            driver = connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            try:
                if not driver.autocommit:
                    driver.autocommit = True
                yield driver
            except psycopg.OperationalError as error:
                connection.invalidate(error)
                raise
            finally:
                connection.close()

    def listen_connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Give a connection outside the pool, in autocommit, for LISTEN; the caller closes it."""
        with translated():
            return psycopg.connect(
                self._url.set(drivername="postgresql").render_as_string(hide_password=False),
                autocommit=True,
                connect_timeout=3,
                application_name="darkroom listen",
                **_KEEPALIVE,
            )

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()


def _note_as_new(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_NEW] = True


def _replace_closed(connection: psycopg.Connection[Any], record: ConnectionPoolEntry, _proxy: object) -> None:
    """Have the pool open new connections in place of those that the server closed while they were idle.

    Without it each of them costs a caller a DatabaseDown long after Postgres is back. Between statements the
    server says nothing but goodbye, so whether there is something to read tells, at the price of a system
    call instead of a round trip.

    One that was made just now is left to its first statement: a pool whose replacement is closed as well, by
    a server that is going down, raises an error which says nothing of that, and threads died of it.
    """
    if record.info.pop(_NEW, False):
        return
    if connection.closed:
        raise exc.InvalidatePoolError
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    if poller.poll(0):
        raise exc.InvalidatePoolError


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's and SQLAlchemy's ways to say "Postgres is away" into DatabaseDown."""
    try:
        yield
    except exc.DBAPIError as error:
        if isinstance(error, _GONE) or error.connection_invalidated:
            raise DatabaseDown(retry_after=timedelta(seconds=1)) from error
        raise
    except (exc.TimeoutError, psycopg.OperationalError) as error:
        raise DatabaseDown(retry_after=timedelta(seconds=1)) from error


def connect(settings: Settings, *, pool_size: int = 8, application_name: str = "darkroom") -> Database:
    """Give the database the settings name; opens nothing yet."""
    return Database(
        settings.database_url.get_secret_value(), pool_size=pool_size, application_name=application_name
    )
