"""One pool of all targets of a model: where a job goes when its provider fails it."""

from dataclasses import dataclass, field

from app.db import Database
from app.db.jobs import Claim, Place
from app.domain.catalog import Catalog
from app.domain.spec import JobSpec
from app.errors import DarkroomError
from app.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Move:
    """Where a job is drawn next, and what its event says of it."""

    place: Place
    detail: dict[str, object] = field(default_factory=dict)


class Pool:
    """The targets of all models; thread-safe."""

    def __init__(self, settings: Settings, database: Database, catalog: Catalog) -> None:
        self._settings = settings
        self._database = database
        self._catalog = catalog

    def after_failure(self, claim: Claim, spec: JobSpec, error: DarkroomError) -> Move | None:
        """Give where a job goes whose provider failed it; None: nowhere else."""
        del claim, spec, error
        return None
