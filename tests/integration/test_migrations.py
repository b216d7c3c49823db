"""The migrations: up, down and up again; and the tables of app/db/tables equal to what they leave."""

import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Engine
from sqlalchemy.engine import make_url

from app.db import migrate
from app.db.tables import metadata
from app.settings import Settings


@pytest.fixture
def empty_database(settings: Settings) -> Iterator[str]:
    """A database of its own, so that the others' tables stay."""
    url = make_url(settings.database_url.get_secret_value())
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS darkroom_migrations WITH (FORCE)")
        connection.execute("CREATE DATABASE darkroom_migrations")
        yield url.set(database="darkroom_migrations").render_as_string(hide_password=False)
        connection.execute("DROP DATABASE darkroom_migrations WITH (FORCE)")


@pytest.fixture
def engine(empty_database: str) -> Engine:
    return migrate.engine_for(empty_database)


def test_there_is_one_newest_level() -> None:
    heads = ScriptDirectory.from_config(
        migrate.config(migrate.engine_for("postgresql://nowhere"))
    ).get_heads()

    assert heads == [migrate.newest_level()]


def test_up_down_and_up_again(empty_database: str, engine: Engine) -> None:
    assert migrate.upgrade(empty_database) == (None, migrate.newest_level())
    command.downgrade(migrate.config(engine), "base")
    assert migrate.current_level(engine) is None
    with engine.connect() as connection:
        left = connection.exec_driver_sql(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        )
        assert {row[0] for row in left} <= {"alembic_version", "alembic_version_pkc"}
    assert migrate.upgrade(empty_database) == (None, migrate.newest_level())


def test_migrating_twice_changes_nothing(empty_database: str) -> None:
    migrate.upgrade(empty_database)

    assert migrate.upgrade(empty_database) == (migrate.newest_level(), migrate.newest_level())


def test_several_pods_may_migrate_at_once(empty_database: str, engine: Engine) -> None:
    program = "import sys; from app.db import migrate; migrate.upgrade(sys.stdin.read())"
    pods = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(3)]
    for pod in pods:
        assert pod.stdin is not None
        pod.stdin.write(empty_database.encode())
        pod.stdin.close()

    assert [pod.wait(timeout=60) for pod in pods] == [0, 0, 0]
    assert migrate.current_level(engine) == migrate.newest_level()


def test_the_tables_equal_the_migrated_schema(empty_database: str, engine: Engine) -> None:
    migrate.upgrade(empty_database)

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_every_check_says_the_same_in_table_and_database(empty_database: str, engine: Engine) -> None:
    """Alembic compares CHECKs by name only, so their text is compared here, as Postgres spells it."""
    migrate.upgrade(empty_database)
    with engine.begin() as connection:
        rows = connection.exec_driver_sql(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' "
            "AND connamespace = 'public'::regnamespace"
        )
        migrated: dict[str, str] = {row[0]: row[1] for row in rows}
        connection.exec_driver_sql("CREATE SCHEMA again")
        connection.exec_driver_sql("SET search_path TO again")
        metadata.create_all(connection)
        rows = connection.exec_driver_sql(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' "
            "AND connamespace = 'again'::regnamespace"
        )
        defined: dict[str, str] = {row[0]: row[1] for row in rows}

    assert defined == migrated
    assert len(defined) >= sum(
        isinstance(c, CheckConstraint) for t in metadata.tables.values() for c in t.constraints
    )


def test_every_table_and_column_has_a_comment() -> None:
    for table in metadata.tables.values():
        assert table.comment, table.name
        for column in table.columns:
            assert column.comment, f"{table.name}.{column.name}"
