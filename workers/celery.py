"""The Celery app: queues, settings, timetable, and the life of a worker process.

    celery -A workers worker -Q cpu                      one worker for one queue
    celery -A workers beat                               the timetable; one is enough, two are harmless

No result backend, no ETA, no retries, no events: the row in Postgres is the job, a message a wake-up.
"""

import mmap
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, Final

from celery import Celery, signals
from celery.worker import state as celery_state

from app import broker, dispatch, log, safe_http
from app.buckets import Buckets
from app.db import bell, connect
from app.domain import catalog
from app.domain.queues import GPU
from app.errors import DarkroomError, SetupError
from app.failpoints import arm
from app.pool import Pool
from app.process import die_with_parent
from app.readiness import engine_lack
from app.settings import Settings, load
from app.storage import open_store
from app.vault import Vault
from workers import providers, safety
from workers.copying import Copier
from workers.deliverer import Deliverer
from workers.leases import EXIT_BROKEN, Leases
from workers.placing import Placing
from workers.runner import Runner

_log = log.get_logger(__name__)

_BROKEN_MARGIN: Final = 30.0
"""Seconds past the drain's grace after which a process whose device broke ends anyway: a call that is stuck
in the driver never returns."""
_HARD_LIMIT_MARGIN: Final = 60
"""Seconds past a job's deadline after which Celery kills a prefork child that does not listen at all."""


def make_app(settings: Settings) -> Celery:
    """Give the configured app; connects to nothing."""
    made = Celery("darkroom", include=["workers.tasks"], set_as_current=False)
    made.conf.update(_configuration(settings))
    return made


def _configuration(settings: Settings) -> dict[str, Any]:
    url = settings.broker_url.get_secret_value()
    names = dispatch.all_queues(catalog.load(settings.models_file, offered=settings.models))
    return {
        "broker_url": url,
        "broker_transport": None if url.startswith("amqp") else "workers.valkey:Transport",
        "broker_transport_options": broker.transport_options(
            url, visibility_timeout=settings.job_deadline * 2
        ),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_heartbeat": 30,
        "task_queues": [broker.declared_queue(name, queue_type=settings.broker_queue_type) for name in names],
        "task_default_queue": broker.UPKEEP,
        "task_default_exchange": "",
        "task_create_missing_queues": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        # A worker takes from the broker only what it starts at once; the rest waits in Postgres.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "task_time_limit": settings.job_deadline.total_seconds() + _HARD_LIMIT_MARGIN,
        "task_publish_retry": False,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_disable_rate_limits": True,
        # A leak in an image library costs one child, not the worker. A new child costs about 0.25 s of CPU:
        # every 500 jobs it was a quarter of a no-op job's cost.
        "worker_max_tasks_per_child": 5_000,
        # A safety model of its own takes up to 1.6 GB of a child.
        "worker_max_memory_per_child": 1_500_000 + (2_000_000 if settings.safety_folder else 0),
        "beat_schedule": {
            "purge": _every("purge", settings.purge_every.total_seconds()),
            "sweep": _every("sweep", 3600.0),
            "copy_outputs": _every("copy_outputs", 15.0),
        },
        # Remembers nothing: its tasks are idempotent, and a file would need a writable folder.
        "beat_scheduler": "celery.beat:Scheduler",
    }


def _every(task: str, seconds: float) -> dict[str, Any]:
    """A line of the timetable; what no worker took before the next is due is dropped, not piled up."""
    return {"task": task, "schedule": seconds, "options": {"expires": seconds}}


class WorkerProcess:
    """What a process that runs jobs holds: a prefork child, or the main process of a thread pool.

    Opened after the fork, since connections and threads do not survive one.
    """

    def __init__(self, settings: Settings, *, queues: list[str], slots: int) -> None:
        self.settings = settings
        self._queues = queues
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="warm-up")
        self.database = connect(settings, pool_size=slots + 3, application_name="darkroom worker")
        self.storage = open_store(settings)
        known = catalog.load(settings.models_file, offered=settings.models)
        self.providers = providers.Providers(settings, known, self.database, on_broken=self._end)
        self._doorbell = bell.Doorbell(self.database)
        self._leases = Leases(
            settings,
            self.database,
            queues=queues,
            slots=slots,
            is_draining=_drain_flag_is_up,
            doorbell=self._doorbell,
            warm_models=self.providers.warm_models,
        )
        self.runner = Runner(
            settings,
            database=self.database,
            storage=self.storage,
            providers=self.providers,
            leases=self._leases,
            doorbell=self._doorbell,
            copier=self.copier,
            placing=Placing(known, Pool(settings, self.database, known)),
        )

    @cached_property
    def deliverer(self) -> Deliverer:
        """Posts webhooks; made when the first is due, as most processes never post one."""
        return Deliverer(
            self.settings,
            database=self.database,
            guard=safe_http.for_webhooks(self.settings),
            vault=Vault(self.settings),
            doorbell=self._doorbell,
            is_draining=_drain_flag_is_up,
        )

    @cached_property
    def copier(self) -> Copier:
        """Copies outputs into customers' own buckets."""
        buckets = Buckets(self.settings, self.database)
        return Copier(
            self.settings,
            database=self.database,
            storage=self.storage,
            buckets=buckets,
            is_draining=_drain_flag_is_up,
        )

    def open(self) -> None:
        """Start the threads and announce the process, so that relay sends it work.

        A GPU worker announces no slots before the models it is to have in memory are there. They are loaded
        in a thread of their own: Celery's main thread must go on talking to the broker.
        """
        self._doorbell.start()
        warm = self.settings.gpu_warm if any(name.startswith(GPU) for name in self._queues) else ()
        if warm:
            slots, self._leases.slots = self._leases.slots, 0
            loads = {model: self._loader.submit(self.providers.warm, model) for model in warm}
            self._loader.submit(self._take_jobs, loads, slots)
        self._leases.start()
        self._doorbell.ring()

    def close(self) -> None:
        """Sign off; models that are not yet loaded are not."""
        self._loader.shutdown(wait=False, cancel_futures=True)
        self.runner.close()
        self._leases.stop()
        self._doorbell.stop()
        self.database.close()

    def _take_jobs(self, loads: Mapping[str, Future[None]], slots: int) -> None:
        """Announce the slots, after the one thread that loads has ended all that was to be loaded."""
        for model, loaded in loads.items():
            if (error := loaded.exception()) is not None:
                # Other models' jobs can be drawn; those of this one will say the same.
                _log.warning("warm_up_failed", model=model, error=str(error), exc_info=_unforeseen(error))
        self._leases.slots = slots
        self._leases.beat_now()

    def _end(self, why: str) -> None:
        """End this process in order, as SIGTERM does: what it still runs is given back, uncharged.

        But not with status 0, so that whoever starts workers again only after a failure does so.
        """
        _log.error("process_ends", reason=why)
        grace = self.settings.drain_grace.total_seconds() + _BROKEN_MARGIN
        last = threading.Timer(grace, os._exit, args=(EXIT_BROKEN,))
        last.daemon = True
        last.start()
        _drain_flag[0] = 1
        celery_state.should_stop = EXIT_BROKEN  # type: ignore[assignment]  # it is; all that Celery's handler of SIGTERM does


def _unforeseen(error: BaseException) -> BaseException | None:
    """Give an error that is none of ours, so that its traceback is logged."""
    return None if isinstance(error, DarkroomError) else error


_drain_flag = mmap.mmap(-1, 1)
"""One byte that main process and forked children share; written from a signal handler, so without a lock."""
_process: WorkerProcess | None = None
_main: dict[str, Any] = {}


def _drain_flag_is_up() -> bool:
    return _drain_flag[0] != 0


def process() -> WorkerProcess:
    """Give what this process holds.

    Raises:
        RuntimeError: it is not a Celery worker that has started.
    """
    if _process is None:
        raise RuntimeError("tasks run only inside `celery -A workers worker`")
    return _process


def _open_process(*, slots: int) -> None:
    global _process  # noqa: PLW0603 - Celery's signals have no other place to keep it
    arm(app_settings().failpoints)
    _process = WorkerProcess(app_settings(), queues=sorted(app.amqp.queues.consume_from), slots=slots)
    _process.open()


def _close_process() -> None:
    global _process  # noqa: PLW0603 - see above
    if _process is not None:
        _process.close()
        _process = None


@signals.setup_logging.connect
def _configure_logging(**_: object) -> None:
    settings = app_settings()
    log.configure(log_format=settings.log_format, level=settings.log_level)


@signals.celeryd_after_setup.connect
def _remember_pool(instance: Any, **_: object) -> None:
    _main["slots"] = instance.concurrency
    _main["forks"] = "prefork" in instance.pool_cls.__module__
    names = set(app.amqp.queues.consume_from)
    try:
        if not names <= {broker.WEBHOOKS, broker.UPKEEP}:
            safety.verify(app_settings())
        if gpus := sorted(name for name in names if name.startswith(GPU)):
            _verify_gpu(gpus)
    except SetupError as error:
        # Celery logs and swallows every other exception of a signal's handler.
        raise SystemExit(error.message) from None


def _verify_gpu(queues: Sequence[str]) -> None:
    """See before any job comes whether a worker of these queues can draw.

    Raises:
        SetupError: it cannot; the message names the remedy.
    """
    if _main["forks"]:
        raise SetupError(
            f"A worker of {queues[0]} needs -P threads -c 2, as CUDA does not survive a fork; "
            f"celery -A workers worker -Q {queues[0]} -P threads -c 2"
        )
    known = catalog.load(app_settings().models_file, offered=app_settings().models)
    drawn_by = {target.provider for m in known.models for target in m.targets if target.queue in queues}
    if providers.DIFFUSERS in drawn_by and (lack := engine_lack()) is not None:
        raise SetupError(f"This worker cannot draw: {lack.says}; {lack.remedy}.")


@signals.worker_process_init.connect
def _open_child(**_: object) -> None:
    die_with_parent()
    _open_process(slots=1)


@signals.worker_ready.connect
def _open_main(**_: object) -> None:
    if not _main["forks"]:
        _open_process(slots=_main["slots"])


@signals.worker_shutting_down.connect
def _raise_drain_flag(**_: object) -> None:
    _drain_flag[0] = 1


@signals.worker_process_shutdown.connect
def _close_child(**_: object) -> None:
    _close_process()


@signals.worker_shutdown.connect
def _close_main(**_: object) -> None:
    _close_process()


_settings: Settings = load()
app = make_app(_settings)
"""What `celery -A workers` finds. The only import-time reading of settings: Celery gives no later moment."""


def app_settings() -> Settings:
    """Give the settings this process was started with."""
    return _settings
