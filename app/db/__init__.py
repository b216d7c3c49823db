"""The way to Postgres: one engine per process, transactions, and the translation of its failures.

Statements live beside this file, grouped by what they are about; each takes an open `Connection`, so that
whoever opened the transaction decides what belongs together. They are written as SQL for psycopg
(`%(name)s`) and run through `Connection.exec_driver_sql`, which spares the hot paths SQLAlchemy's compiler.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.engine import Connection, make_url

from app.errors import DatabaseDown
from app.settings import Settings

_GONE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, exc.DisconnectionError)


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
            pool_timeout=pool_wait.total_seconds(),
            pool_use_lifo=True,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "connect_timeout": 3,
                "application_name": application_name,
                # Compiling a plan (jit) takes longer than any of our statements runs.
                "options": f"-c jit=off -c statement_timeout={int(statement_timeout.total_seconds() * 1000)}",
                # A frozen or vanished server is noticed after 10 s instead of the kernel's quarter hour.
                "tcp_user_timeout": 10_000,
                "keepalives_idle": 10,
            },
        )

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
            try:
                driver = connection.driver_connection
                assert isinstance(driver, psycopg.Connection)
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
            )

    def forget_connections(self) -> None:
        """Drop the pool without closing its sockets; call it in a child right after a fork."""
        self._engine.dispose(close=False)

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()


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
