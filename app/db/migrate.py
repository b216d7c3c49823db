"""Brings a database's schema to the newest level."""

from importlib import resources

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, pool
from sqlalchemy.engine import make_url

from app.db import translated


def engine_for(url: str) -> Engine:
    """Give an engine without a pool, for the one connection a migration needs."""
    return sqlalchemy.create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=pool.NullPool,
        connect_args={"connect_timeout": 3},
    )


def config(engine: Engine) -> Config:
    """Give Alembic's configuration for the migrations of this installation, run on `engine`."""
    found = Config()
    found.set_main_option("script_location", str(resources.files("migrations")).replace("%", "%%"))
    found.attributes["engine"] = engine
    return found


def newest_level() -> str:
    """Give the level this version of the code needs."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(resources.files("migrations")))


def is_behind(level: str | None) -> bool:
    """Whether this version of the code cannot work on that level; on a newer one, unknown to it, it can."""
    known = {script.revision for script in _scripts().walk_revisions()}
    return level is None or (level in known and level != newest_level())


def current_level(engine: Engine) -> str | None:
    """Give the level a database is on; None for one that was never migrated.

    Raises:
        DatabaseDown: it cannot be reached.
    """
    with translated(), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str) -> tuple[str | None, str]:
    """Migrate to the newest level; gives the level before and after. Harmless when repeated or doubled.

    Raises:
        DatabaseDown: Postgres cannot be reached, or a lock was not free within 4 s; run it again.
    """
    engine = engine_for(url)
    before = current_level(engine)
    with translated():
        command.upgrade(config(engine), "head")
    return before, newest_level()
