"""`darkroom up`: the servers and every process of Darkroom on one machine, until Ctrl-C."""

import signal
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from app import auth, settings
from app.broker import UPKEEP, WEBHOOKS
from app.db import Database, accounts, connect, migrate, workers
from app.dispatch import all_queues
from app.domain import catalog
from app.domain.catalog import Catalog
from app.domain.queues import gpu_of, pool_of
from app.errors import DatabaseDown, SetupError
from app.local.child import Program
from app.local.stack import Stack
from app.local.state import is_free
from app.local.supervisor import Event, Happened, http_ready
from app.readiness import lacks_of
from app.settings import Settings, environment_of_child
from app.storage import open_store

KEY_FILE = "api-key"
"""File in the state folder with the first account's API key."""
HOST = "127.0.0.1"


def run(state: Path, *, port: int, out: Console) -> None:
    """Serve on 127.0.0.1 until SIGINT or SIGTERM, then stop everything in reverse order.

    Raises:
        SetupError: something does not start; the message says why and what to do.
    """
    if not is_free(port):
        why = "is taken" if port >= _FIRST_FREE_FOR_ALL else "is taken, or only root may use it"
        raise SetupError(f"port {port} of {HOST} {why}; name another, as in: darkroom up --port 8001")
    with Stack.open(state, on_event=lambda event: tell(event, out)) as stack:
        loaded = start_everything(stack, port=port)
        model = catalog.load(loaded.models_file, offered=loaded.models).models[0].id
        url, key_file = f"http://{HOST}:{port}", state / KEY_FILE
        stack.supervisor.run_until_stopped(
            announce=lambda: _announce(out, example(url, key_file, model=model), url, key_file)
        )
        out.print("Stopping … (Ctrl-C again: at once, unfinished jobs run at the next start)")
    out.print("Stopped.")


def _announce(out: Console, command: str, url: str, key_file: Path) -> None:
    out.print(f"\n[bold]Darkroom serves on {url}[/bold] - API documentation: {url}/docs")
    out.print(f"The first account's API key is in {key_file}\n")
    out.print(command, markup=False)
    out.print("\nCtrl-C stops everything; jobs and pictures stay in the state folder.")


def example(url: str, key_file: Path, *, model: str) -> str:
    """Give a curl command ready to paste."""
    return (
        f"curl -s {url}/v1/images/generate \\\n"
        f'  -H "X-API-Key: $(cat {key_file})" -H "Content-Type: application/json" \\\n'
        f"""  -d '{{"modelId": "{model}", "prompt": "misty mountains at sunrise, two birds"}}'"""
    )


def tell(event: Event, out: Console) -> None:
    """Print one line for what happened to a program."""
    seconds = f"{event.took.total_seconds():.1f} s"
    detail = f" ({event.detail})" if event.detail and event.what is not Happened.READY else ""
    style = "red" if event.what is Happened.DIED else "dim"
    out.print(f"[{style}]  {event.name:<28} {event.what:<10}{seconds:>8}[/{style}]{detail}")


def start_everything(stack: Stack, *, port: int) -> Settings:
    """Migrate, make bucket and first key, then start web, relay, workers for every queue, and beat.

    Raises:
        SetupError: a process does not start, or a model is offered that cannot be drawn here.
    """
    loaded = settings.load(stack.state)
    known = catalog.load(loaded.models_file, offered=loaded.models)
    refuse_what_cannot_be_drawn(loaded, known)
    # Its processes run elsewhere, and would look for a relative path there.
    stack.environment.update(_places(loaded))
    migrate.upgrade(loaded.database_url.get_secret_value())
    open_store(loaded).ensure_bucket()
    database = connect(loaded, pool_size=2, application_name="darkroom up")
    ensure_first_key(database, loaded, stack.state / KEY_FILE)
    url = f"http://{HOST}:{port}/readyz"
    web = _darkroom("web", "--host", HOST, "--port", str(port))
    stack.supervisor.start(
        *_workers(stack, database, loaded, known),
        _program(stack, "relay", _darkroom("relay")),
        _program(stack, "beat", [*_CELERY, "beat", "--loglevel=WARNING"]),
        _program(stack, "web", web, ready=lambda: http_ready(url)),
    )
    return loaded


def refuse_what_cannot_be_drawn(loaded: Settings, known: Catalog) -> None:
    """Check that each model has a target whose weights or key are here.

    Raises:
        SetupError: one has none; the message says what all of its targets lack, and the remedy.
    """
    for model in known.models:
        lacks = lacks_of(model, known, loaded)
        if len(lacks) == len(model.targets):
            why = "; ".join(f"{lack.says} ({lack.remedy})" for _, lack in lacks)
            raise SetupError(f"Model {model.id} cannot be drawn here: {why}")


def _places(loaded: Settings) -> dict[str, str]:
    places = {"DARKROOM_MODELS_FOLDER": str(loaded.models_folder)}
    if loaded.models_file is not None:
        places["DARKROOM_MODELS_FILE"] = str(loaded.models_file.absolute())
    return places


def ensure_first_key(database: Database, loaded: Settings, key_file: Path) -> None:
    """Make the first account's key, the preset one or a random one, and write it to `key_file` (0600).

    A file that still holds a valid key is left as it is.

    Raises:
        SetupError: the preset key was revoked.
    """
    secret_key = loaded.secret_key.get_secret_value()
    with database.transaction() as tx:
        key = auth.ensure_bootstrap_key(tx, loaded)
        if key is None and key_file.exists():
            kept = key_file.read_text().strip()
            key = kept if accounts.find_key(tx, auth.digest(kept, secret_key=secret_key)) else None
        if key is None:
            new = auth.create_key(tx, account=auth.FIRST_ACCOUNT, name="first key", secret_key=secret_key)
            assert new is not None
            key = new.key
    key_file.touch(mode=0o600)
    key_file.write_text(key + "\n")


_FIRST_FREE_FOR_ALL = 1024
_FRESH = 5.0
"""Seconds since its heartbeat within which a worker is one of this start."""
_MARGIN = timedelta(seconds=10)
"""What a worker may take beyond its drain's grace."""
_NONE = timedelta(0)
_CELERY = [sys.executable, "-m", "celery", "-A", "workers"]


def _darkroom(*words: str) -> list[str]:
    return [sys.executable, "-c", "from app.cli import main; main()", *words]


def _workers(stack: Stack, database: Database, loaded: Settings, known: Catalog) -> list[Program]:
    """One per queue that draws; one for the two that mostly wait, as a worker costs over 100 MB of memory."""
    drawing = [name for name in all_queues(known) if name not in {WEBHOOKS, UPKEEP}]
    calls = {upstream.queue: upstream.timeout for upstream in known.upstreams}
    grace = loaded.drain_grace + _MARGIN
    return [
        # A paid call is waited for, as nobody knows what came of one that was cut off.
        *(
            _worker(stack, name, [*pool_of(name)], database, stop_within=grace + calls.get(name, _NONE))
            for name in drawing
        ),
        _worker(stack, f"{WEBHOOKS},{UPKEEP}", ["-P", "threads", "-c", "8"], database, stop_within=grace),
    ]


def _worker(
    stack: Stack, queues: str, pool: list[str], database: Database, *, stop_within: timedelta
) -> Program:
    first = queues.partition(",")[0]
    argv = [
        *_CELERY,
        *("worker", "-Q", queues, "-n", f"{first}@%h", *pool),
        *("--without-gossip", "--without-mingle", "--loglevel=INFO"),
    ]
    return _program(
        stack,
        f"worker {first}",
        argv,
        ready=lambda: _is_served(database, first),
        stop_within=stop_within,
        changes=_gpu(first, environment_of_child().get("CUDA_VISIBLE_DEVICES")),
    )


def _gpu(queue: str, seen: str | None) -> dict[str, str]:
    """Let a worker of `gpu.1` see the second GPU only, of those that this process sees.

    Args:
        seen: CUDA_VISIBLE_DEVICES of this process; None: it is not set.
    """
    number = gpu_of(queue)
    if number is None:
        return {}
    if seen is None:
        return {"CUDA_VISIBLE_DEVICES": number}
    several = seen.split(",") if seen else []
    # Where fewer are seen than the queue's number says, the operator has chosen for all of them.
    return {"CUDA_VISIBLE_DEVICES": several[int(number)]} if int(number) < len(several) else {}


def _is_served(database: Database, queue: str) -> bool:
    try:
        with database.autocommit() as tx:
            return any(
                queue in row.queues and row.silent_seconds < _FRESH for row in workers.list_workers(tx)
            )
    except DatabaseDown:
        return False


def _program(
    stack: Stack,
    name: str,
    argv: list[str],
    *,
    ready: Callable[[], bool] = lambda: True,
    stop_within: timedelta = timedelta(seconds=30),
    changes: Mapping[str, str] | None = None,
) -> Program:
    return Program(
        name=name,
        argv=argv,
        environment=environment_of_child(
            **stack.environment,
            **(changes or {}),
            DARKROOM_STATE=str(stack.state),
            PYTHONUNBUFFERED="1",
        ),
        ready=ready,
        ready_within=timedelta(seconds=60),
        stop_within=stop_within,
        # Not SIGTERM, on which a worker would drain for a minute against servers that are gone.
        death_signal=signal.SIGKILL,
        log=stack.state / "logs" / f"{name.replace(' ', '-')}.log",
        cwd=stack.state,
    )
