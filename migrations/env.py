"""How Alembic runs the migrations: one at a time, and never waiting long for a lock others need."""

from alembic import context
from sqlalchemy import Connection, Engine, create_engine, pool
from sqlalchemy.engine import make_url

from app.db.tables import metadata
from app.settings import load

ADVISORY_LOCK = 4_206_909_001
"""Any fixed number: several pods may start the migration at once, and one of them does it."""


def run(connection: Connection) -> None:
    """Migrate over an open connection, each migration in a transaction of its own."""
    # A migration that cannot get its lock fails and is tried again; waiting, it would queue every
    # request of that table behind itself. 5 s is plenty for any statement that does not scan a table.
    # lock_timeout would also bound the wait for whoever migrates now, so that one is waited for first.
    connection.exec_driver_sql("SET statement_timeout = '5min'")
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    connection.exec_driver_sql("SET lock_timeout = '4s'")
    connection.exec_driver_sql("SET statement_timeout = '5s'")
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    try:
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.exec_driver_sql(f"SELECT pg_advisory_unlock({ADVISORY_LOCK})")
        connection.commit()


def run_offline() -> None:
    """Write the SQL instead of running it: `alembic -c setup.cfg upgrade head --sql`."""
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def engine() -> Engine:
    """Give the engine a caller passed in `config.attributes`, else one for DARKROOM_DATABASE_URL."""
    given = context.config.attributes.get("engine")
    if given is not None:
        assert isinstance(given, Engine)
        return given
    url = make_url(load().database_url.get_secret_value()).set(drivername="postgresql+psycopg")
    return create_engine(url, poolclass=pool.NullPool)


if context.is_offline_mode():
    run_offline()
else:
    with engine().connect() as opened:
        run(opened)
