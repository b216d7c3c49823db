"""`darkroom`: people's commands. Workers and beat keep Celery's own, which operators know."""

import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click
from rich.console import Console
from rich.table import Table

from app import __version__, auth, dispatch, health, log, retention, settings_page
from app import settings as settings_module
from app.broker import Broker
from app.db import accounts, connect, migrate, sealed
from app.domain import catalog
from app.errors import DarkroomError
from app.settings import DEFAULT_STATE, Settings
from app.storage import open_store
from app.vault import Vault

out = Console(highlight=False, soft_wrap=True)
_WIDEST_TABLE: Final = 1000


class _Commands(click.Group):
    """Shows our errors as one sentence with the remedy, not as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DarkroomError as error:
            raise click.ClickException(error.message) from error


def _state_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="DARKROOM_STATE",
        default=DEFAULT_STATE,
        show_default=True,
        help="State folder of a local stack; its darkroom.env gives what the environment does not.",
    )(command)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="darkroom")
def main() -> None:
    """Self-hosted image jobs behind the APIs your services already speak."""


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@_state_option
def up(port: int, state: Path) -> None:
    """Run everything on this machine until Ctrl-C: servers, web, relay, workers, beat."""
    from app.local.up import run  # noqa: PLC0415 - the embedded servers' code only where they are wanted

    run(state.absolute(), port=port, out=out)


@main.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for the pictures.",
)
@_state_option
def demo(output: Path, state: Path) -> None:
    """Start everything, draw two pictures over HTTP, show how long each stage took, and stop."""
    from app.local.demo import run  # noqa: PLC0415 - see up

    run(state.absolute(), output=output, out=out)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@_state_option
def web(host: str, port: int, state: Path) -> None:
    """Serve the HTTP APIs until SIGTERM."""
    from app.serve import serve  # noqa: PLC0415 - only the web process needs a WSGI server

    settings_module.use_state(state)  # the server's own processes load them again
    serve(settings_module.load(state), host=host, port=port)


@main.command()
@_state_option
def relay(state: Path) -> None:
    """Release due jobs to the queues until SIGTERM; run one to three of them."""
    settings = _start(state)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = connect(settings, pool_size=2, application_name="darkroom relay")
    broker = Broker(settings)
    known = catalog.load(settings.models_file, offered=settings.models)
    dispatch.Relay(settings, database, broker, known).run(stop)
    broker.close()


@main.command(name="migrate")
@_state_option
def migrate_command(state: Path) -> None:
    """Bring the database's schema to this version's level; make the bucket and the preset first key.

    Harmless when repeated, and when several start it at once.
    """
    settings = _start(state)
    before, after = migrate.upgrade(settings.database_url.get_secret_value())
    with connect(settings).transaction() as tx:
        auth.ensure_bootstrap_key(tx, settings)
    open_store(settings).ensure_bucket()
    if before == after:
        out.print(f"The schema is on level {after} already.")
    else:
        out.print(
            f"Migrated from level {before or 'none'} to {after}. Next: darkroom keys create --account NAME"
        )


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@_state_option
def purge(*, dry_run: bool, state: Path) -> None:
    """Delete expired inputs and outputs now; beat does it every few minutes."""
    settings = _start(state)
    database = connect(settings)
    if dry_run:
        due = retention.due(settings, database)
        oldest = f", the oldest expired at {due.oldest:%Y-%m-%d %H:%M:%S %Z}" if due.oldest else ""
        out.print(
            f"Would delete {due.outputs} outputs ({due.bytes:,} bytes) and {due.inputs} inputs{oldest}."
            " Run without --dry-run to delete them."
        )
        return
    purged = retention.purge(settings, database=database, storage=open_store(settings))
    out.print(f"Deleted {purged.deleted} objects; {purged.marked} were newly due.")
    if purged.failed:
        raise click.ClickException(f"The store kept {purged.failed} objects; the next purge tries again.")


@main.command()
@_state_option
def doctor(state: Path) -> None:
    """Check every connection, the schema, each queue and its workers; say what to do."""
    settings = _start(state)
    findings = health.examine(
        settings, database=connect(settings), storage=open_store(settings), broker=Broker(settings)
    )
    table = Table("", "check", "found", "what to do", box=None)
    for finding in findings:
        mark = "[green]ok[/green]" if finding.well else "[red]NOT WELL[/red]"
        table.add_row(mark, finding.name, finding.says, finding.remedy)
    out.print(table)
    if not all(finding.well for finding in findings):
        raise SystemExit(1)


@main.command(name="rotate-secrets")
@_state_option
def rotate_secrets(state: Path) -> None:
    """Encrypt every stored secret anew with the newest key; afterwards older keys may be taken away.

    Put the new key first into DARKROOM_ENCRYPTION_KEYS, restart everything, then run this.
    """
    settings = _start(state)
    vault = Vault(settings)
    with connect(settings).transaction() as tx:
        count = sealed.change_all(tx, vault.rotate)
    out.print(f"Encrypted {count} secrets with the newest key; older keys are not needed any more.")


@main.command(name="settings")
def show_settings() -> None:
    """Print every setting with its default and meaning, as Markdown."""
    click.echo(settings_page.as_markdown(), nl=False)


@main.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@_state_option
def discard(*, yes: bool, state: Path) -> None:
    """Delete a local stack that is stopped: its servers' data, with all jobs and pictures."""
    from app.local import stack  # noqa: PLC0415 - see up

    if state.exists() and not yes:
        click.confirm(f"Delete {state} with all jobs and pictures?", abort=True)
    out.print(f"Deleted {state}." if stack.discard(state) else f"There is no {state}.")


@main.group(cls=_Commands)
def models() -> None:
    """Show what can be offered, and get the weights of local models."""


@models.command(name="list")
@_state_option
def list_models(state: Path) -> None:
    """List the built-in shelf and the catalogue: licence, size, and whether weights or key are here."""
    from app import cli_models  # noqa: PLC0415 - see up

    cli_models.show(settings_module.load_without_servers(state))


@models.command(name="pull")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_state_option
def pull_model(name: str, *, yes: bool, state: Path) -> None:
    """Download a model's weights, after showing their licence and size; no job ever does that.

    Files that are whole stay; one that was interrupted comes anew.
    """
    from app import cli_models  # noqa: PLC0415 - see up

    cli_models.pull(settings_module.load_without_servers(state), name, yes=yes, out=out)


_KINDS: Final = {"plain": auth.KEY_PREFIX, "live": auth.LIVE_PREFIX, "test": auth.TEST_PREFIX}


@main.group(cls=_Commands)
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command(name="create")
@click.option("--account", default=auth.FIRST_ACCOUNT, show_default=True, help="Made when there is none.")
@click.option("--name", default="key", show_default=True, help="What you will recognise it by.")
@click.option("--days", type=click.IntRange(1, 3650), help="Expires after so many days; default: never.")
@click.option(
    "--kind",
    type=click.Choice(sorted(_KINDS)),
    default="plain",
    show_default=True,
    help="live and test begin as IMG Processing's clients expect; what a test key makes is watermarked.",
)
@_state_option
def create_key(account: str, name: str, days: int | None, kind: str, state: Path) -> None:
    """Make an API key and print it; it is shown this once."""
    settings = _start(state)
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    with connect(settings).transaction() as tx:
        new = auth.create_key(
            tx,
            account=account,
            name=name,
            secret_key=settings.secret_key.get_secret_value(),
            prefix=_KINDS[kind],
            expires_at=expires_at,
        )
    assert new is not None
    click.echo(new.key)
    click.echo(f"Key {new.id} of account {account}. It is not shown again; keep it safe.", err=True)


@keys.command(name="list")
@_state_option
def list_keys(state: Path) -> None:
    """List all API keys, newest first; of a key itself only the first characters are known."""
    with connect(_start(state)).autocommit() as tx:
        rows = accounts.list_keys(tx)
    table = Table(box=None)
    table.add_column("id", min_width=36, no_wrap=True)
    for title in ("account", "name", "begins", "created", "last used", "state"):
        table.add_column(title)
    for row in rows:
        stamps = [f"{t:%Y-%m-%d %H:%M}" if t else "never" for t in (row.created_at, row.last_used_at)]
        table.add_row(str(row.id), row.account_name, row.name, row.prefix, *stamps, _state_of(row))
    # At its full width, whatever the terminal's or that of a pipe: half a word is of use to nobody.
    Console(highlight=False, width=_WIDEST_TABLE).print(table)


def _state_of(row: accounts.KeyRow) -> str:
    if row.revoked_at:
        return f"revoked {row.revoked_at:%Y-%m-%d %H:%M}"
    if row.expires_at:
        verb = "expired" if row.expires_at <= datetime.now(UTC) else "expires"
        return f"{verb} {row.expires_at:%Y-%m-%d %H:%M}"
    return "valid"


@keys.command()
@click.argument("key_id", type=click.UUID)
@_state_option
def revoke(key_id: UUID, state: Path) -> None:
    """Revoke an API key by its id; running web processes refuse it at once."""
    with connect(_start(state)).transaction() as tx:
        revoked = accounts.revoke_key(tx, key_id)
        auth.announce_change(tx)
    if not revoked:
        raise click.ClickException(f"There is no valid key with id {key_id}; `darkroom keys list` shows all.")
    out.print(f"Key {key_id} is revoked.")


def _start(state: Path) -> Settings:
    settings = settings_module.load(state)
    log.configure(log_format=settings.log_format, level=settings.log_level)
    return settings
