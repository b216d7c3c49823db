"""The local stack: three real servers in one state folder, started in order and stopped together."""

import contextlib
import shutil
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from app import settings
from app.errors import SetupError
from app.local import cluster, postgres, s3, state, unprivileged, valkey
from app.local.machine import Machine
from app.local.supervisor import Event, Happened, Supervisor

MARK = "stack.json"
EVENTS_KEPT = 1000
HEADER = "# Written by `darkroom up` at each start. Anything set in the environment wins over this file.\n"


class Stack:
    """The servers of one state folder, running; leaving its `with` block stops them and all other programs.

    Everything lives in the state folder: data, logs, secrets and `darkroom.env`, which tells other commands
    where the servers are. Ports and secrets stay the same from run to run. All servers listen on loopback
    only and want a password. Use it from the main thread only, see `Supervisor`.
    """

    def __init__(self, *, folder: Path, machine: Machine, on_event: Callable[[Event], None]) -> None:
        self.state = folder
        self.environment: dict[str, str] = {}
        """The `DARKROOM_…` settings of what runs here; what is given in the environment is left out."""
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        """What happened so far, the latest last."""
        self.supervisor = Supervisor(on_event=self._note)
        """Start further programs with it: they are stopped before the servers are."""
        self._on_event = on_event
        self._machine = machine
        self._cleanup = contextlib.ExitStack()
        self._keeps_open: tuple[int, ...] = ()
        self._memory = state.Memory(ports={}, secrets={})

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        on_event: Callable[[Event], None] = lambda _: None,
        machine: Machine | None = None,
    ) -> Self:
        """Start each server whose setting the environment does not give, and return when all are ready.

        After a kill of everything the same folder opens again with all committed rows and all objects.

        Raises:
            SetupError: the folder is in use or not ours, a server is not installed, does not start or finds
                another version's data. Whatever was started is stopped by then.
        """
        stack = cls(folder=state.open_folder(folder), machine=machine or Machine(), on_event=on_event)
        with contextlib.ExitStack() as cleanup:
            stack._keeps_open = (cleanup.enter_context(state.locked(stack.state)),)
            cleanup.callback(stack.supervisor.stop)
            stack._start()
            stack._cleanup = cleanup.pop_all()
        return stack

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop all programs, the latest first, and give the folder free; calling it again is harmless."""
        self._cleanup.close()

    def discard(self) -> None:
        """Close the stack and delete its state folder with all data, also where that lies elsewhere."""
        self.close()
        _delete(self.state)

    def _start(self) -> None:
        self._memory = state.recall(self.state)
        (self.state / "logs").mkdir(mode=0o700, exist_ok=True)
        if not self._machine.given("database_url"):
            self._start_postgres()
        if not self._machine.given("broker_url"):
            self._start_valkey()
        if not self._machine.given("s3_endpoint"):
            self._start_s3()
        if not self._machine.given("secret_key"):
            self.environment["DARKROOM_SECRET_KEY"] = self._memory["secrets"]["secret_key"]
        lines = [f"{name}={value}\n" for name, value in self.environment.items()]
        state.write_private(self.state / settings.ENV_FILE, HEADER + "".join(lines))

    def _start_postgres(self) -> None:
        began, log = time.monotonic(), self.state / "logs" / "postgres.log"
        password, port = self._memory["secrets"]["postgres"], self._settle_port("postgres")
        here = cluster.install(postgres.find(self._machine), state=self.state, machine=self._machine)
        if cluster.initialise(here, password=password, log=log, keeps_open=self._keeps_open):
            took = timedelta(seconds=time.monotonic() - began)
            self._note(Event(name="postgres", what=Happened.PREPARED, took=took, detail=str(here.data)))
        cluster.forget_dead_server(here)
        self.supervisor.start(
            postgres.program(here, log=log, port=port, password=password, keeps_open=self._keeps_open)
        )
        postgres.create_database(port=port, password=password)
        self.environment["DARKROOM_DATABASE_URL"] = postgres.url(port=port, password=password)

    def _start_valkey(self) -> None:
        password, port = self._memory["secrets"]["valkey"], self._settle_port("valkey")
        server = valkey.find(self._machine)
        self.supervisor.start(
            valkey.program(
                server=server, state=self.state, port=port, password=password, keeps_open=self._keeps_open
            )
        )
        self.environment["DARKROOM_BROKER_URL"] = valkey.url(port=port, password=password)

    def _start_s3(self) -> None:
        access_key, secret_key = self._memory["secrets"]["s3_access"], self._memory["secrets"]["s3_secret"]
        server, port = s3.find(self._machine), self._settle_port("s3")
        self.supervisor.start(
            s3.program(
                server=server,
                state=self.state,
                port=port,
                access_key=access_key,
                secret_key=secret_key,
                keeps_open=self._keeps_open,
            )
        )
        self.environment |= {
            "DARKROOM_S3_ENDPOINT": s3.endpoint(port=port),
            "DARKROOM_S3_ACCESS_KEY": access_key,
            "DARKROOM_S3_SECRET_KEY": secret_key,
        }
        if not self._machine.given("s3_bucket"):
            self.environment["DARKROOM_S3_BUCKET"] = "darkroom"

    def _settle_port(self, name: str) -> int:
        port = state.settle_port(self._memory, name)
        state.remember(self.state, self._memory)
        return port

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._on_event(event)


def discard(folder: Path) -> bool:
    """Delete a state folder with all its data, also where that lies elsewhere; False when there is none.

    Raises:
        SetupError: it is in use, or no state folder at all.
    """
    if not folder.exists():
        return False
    if not (folder / MARK).exists():
        raise SetupError(f"{folder} is not the state folder of a local stack; nothing was deleted")
    with state.locked(folder.resolve()):
        _delete(folder.resolve())
    return True


def _delete(folder: Path) -> None:
    unprivileged.discard_home(folder)
    shutil.rmtree(folder)
