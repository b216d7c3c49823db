"""Is everything there that a running Darkroom needs? Asked by /readyz and by `darkroom doctor`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app import dispatch, readiness
from app.broker import WEBHOOKS, Broker
from app.db import Database, migrate, outbox, queues, workers
from app.domain import catalog, routing
from app.domain.breaker import BreakerState
from app.domain.queues import pool_of
from app.errors import DarkroomError
from app.lookout import Lookout
from app.settings import Settings
from app.storage import Storage

_OLD_WAIT: Final = 60.0
"""Seconds a job may wait in a queue with live workers before doctor speaks of it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found; `remedy` says what to do when it is not well."""

    name: str
    well: bool
    says: str
    remedy: str = ""


def ready(database: Database) -> Finding:
    """Check what a web process needs to accept a job: Postgres, not behind this version's level.

    Not the store: with it away, jobs without an input image are accepted all the same.
    """
    return _checked("database", "DATABASE_URL", lambda: _level_of(database))


def examine(settings: Settings, *, database: Database, storage: Storage, broker: Broker) -> list[Finding]:
    """Check everything: connections, migration level, every queue and the workers behind it."""
    findings = [
        ready(database),
        _checked("store", "S3_ENDPOINT", lambda: _store(storage)),
        _checked("broker", "BROKER_URL", lambda: Finding(name="broker", well=True, says=broker.ping())),
    ]
    if findings[0].well:
        known = catalog.load(settings.models_file, offered=settings.models)
        findings += [
            *_queues(known, database),
            *_weights(settings, known, database),
            *_pool(settings, known, database),
        ]
    return findings


def _checked(name: str, setting: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except DarkroomError as error:
        remedy = f"start it, or correct DARKROOM_{setting}; for a local stack: darkroom up"
        return Finding(name=name, well=False, says=error.message, remedy=remedy)


def _level_of(database: Database) -> Finding:
    with database.autocommit() as tx:
        version = tx.exec_driver_sql("SHOW server_version").scalar_one()
        found = tx.exec_driver_sql("SELECT to_regclass('alembic_version') IS NOT NULL").scalar_one()
        level = tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() if found else None
    if migrate.is_behind(level):
        says = f"PostgreSQL {version}, schema level {level or 'none'}, needed {migrate.newest_level()}"
        return Finding(name="database", well=False, says=says, remedy="darkroom migrate")
    return Finding(name="database", well=True, says=f"PostgreSQL {version}, schema level {level}")


def _store(storage: Storage) -> Finding:
    storage.check()
    return Finding(name="store", well=True, says="bucket reachable, key accepted")


def _queues(known: catalog.Catalog, database: Database) -> list[Finding]:
    names = dispatch.all_queues(known)
    with database.autocommit() as tx:
        loads = {**queues.loads(tx), WEBHOOKS: outbox.load(tx, queue=WEBHOOKS)}
        alive = workers.list_workers(tx)
    return [_queue(name, loads.get(name), alive) for name in names]


def _queue(name: str, load: queues.QueueLoad | None, alive: list[workers.WorkerRow]) -> Finding:
    limit = queues.ALIVE_WITHIN.total_seconds()
    count = sum(1 for w in alive if name in w.queues and not w.draining and w.silent_seconds < limit)
    waiting = load.queued if load else 0
    says = f"{count} workers, {waiting} waiting, {load.processing if load else 0} running"
    if count == 0:
        remedy = " ".join(("celery -A workers worker -Q", name, *pool_of(name)[:2]))
        return Finding(name=f"queue {name}", well=False, says=says, remedy=remedy)
    if load is not None and load.oldest_seconds > _OLD_WAIT:
        says += f", the oldest for {load.oldest_seconds:.0f} s"
        if load.processing < load.slots:
            # Free slots and an old job: nobody hands it to them.
            return Finding(name=f"queue {name}", well=False, says=says, remedy="darkroom relay")
    return Finding(name=f"queue {name}", well=True, says=says)


def _weights(settings: Settings, known: catalog.Catalog, database: Database) -> list[Finding]:
    """A line for each model whose weights are not on this machine; well where another machine serves it."""
    with database.autocommit() as tx:
        alive = workers.list_workers(tx)
    found = {}
    for model in known.models:
        for target in model.targets:
            if target.provider != "diffusers" or target.label in found:
                continue
            if (lack := readiness.weights_lack(target, known, settings)) is not None:
                elsewhere = any(target.queue in worker.queues for worker in alive)
                says = lack.says + (", on this machine; another one may have it" if elsewhere else "")
                remedy = "" if elsewhere else f"{lack.remedy}, where {target.queue} is to be worked"
                found[target.label] = Finding(
                    name=f"weights {target.model}", well=elsewhere, says=says, remedy=remedy
                )
    return list(found.values())


def _pool(settings: Settings, known: catalog.Catalog, database: Database) -> list[Finding]:
    """A line for each upstream, and one for each model that nobody can draw."""
    lookout = Lookout(settings, known)
    with database.autocommit() as tx:
        scene = lookout.look(tx)
    lost = [
        Finding(
            name=f"model {model.id}",
            well=False,
            says=f"nobody can draw it: {reason}",
            remedy="see to one of these, or take it out of the catalogue",
        )
        for model in known.models
        if (reason := routing.unservable(lookout.options(model, scene, None))) is not None
    ]
    return [*(_upstream(scene.state(one.queue), one.name) for one in known.upstreams), *lost]


def _upstream(state: routing.QueueState, name: str) -> Finding:
    condition = state.condition
    says = [f"breaker {condition.breaker.replace('_', ' ')}"]
    if condition.closed_for > 0:
        says.append(f"nothing is sent for {condition.closed_for:.0f} s")
    if condition.calls_left is not None:
        says.append(f"{condition.calls_left} paid calls left now")
    if condition.reason is not None:
        says.append(f"last failure: {condition.reason}")
    remedy = ""
    if not state.has_key:
        says.insert(0, "no key")
        remedy = f"add {name}=KEY to DARKROOM_UPSTREAM_KEYS of web, relay and workers"
    elif condition.breaker is not BreakerState.CLOSED:
        remedy = "see to the account there; it is tried again by itself"
    return Finding(name=f"upstream {name}", well=not remedy, says=", ".join(says), remedy=remedy)
