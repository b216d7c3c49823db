"""Images per second of our GPU worker against plain diffusers on the same weights, alone and in batches.

Four sides, interleaved: A plain diffusers, one prompt per call; B plain diffusers in hand-made batches, the
upper bound; C our worker with batches of one (A against C is what the platform costs); D our worker with
batches as they form (D against B is how well they form). Random weights: speed only.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import torch
import yaml

from app.db import bell
from app.domain import catalog
from app.domain.spec import ImageFormat, JobSpec, Operation
from app.errors import SetupError
from app.storage import open_store
from bench import gpu_weights
from bench.gpu_cases import ON_CPU, ON_GPU, Case
from bench.gpu_plain import Plain
from bench.numbers import Series, Table, against_goal, interleaved, ratios, series
from bench.programs import PYTHON, Running, wait_until
from bench.run import Run
from workers.providers.opening import quiet_libraries

OVERHEAD_GOAL: Final = 0.97
BATCH_GOAL: Final = 0.95
BUSY_GOAL: Final = 0.95
QUEUE: Final = "gpu.bench"
SLOTS: Final = 3
_STUCK: Final = timedelta(minutes=10)


@dataclass(frozen=True)
class _Rate:
    images: float
    """Per second."""
    busy: float = 0.0
    """Share of the time in which the device drew."""
    calls: float = 0.0
    """Images per call."""


@dataclass(frozen=True)
class _Side:
    name: str
    measure: Callable[[], _Rate]


def measure(run: Run) -> list[Table]:
    """Give a table for each model.

    Raises:
        SetupError: PyTorch is not there, or a job of the bench failed.
    """
    quiet_libraries()
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        # One core stands for the GPU, the other has everything else to do.
        torch.set_num_threads(1)
    cases, device = (ON_GPU, "cuda:0") if on_gpu else (ON_CPU, "cpu")
    folder = run.house.stack.state / "weights"
    for name in sorted({case.weights for case in cases}):
        run.say(f"gpu: making random weights ({name})")
        gpu_weights.build(folder / name, name, full_size=on_gpu)
    return [_measure_case(run, case, folder / case.weights, device=device) for case in cases]


def _measure_case(run: Run, case: Case, weights: Path, *, device: str) -> Table:
    run.say(f"gpu: {case.name}: loading")
    plain = Plain(case, weights, open_store(run.house.settings), device=device)
    sides = (
        _Side("A plain diffusers, one by one", lambda: _Rate(plain.rate(case.jobs, batch=1))),
        _Side("B plain diffusers, by hand", lambda: _Rate(plain.rate(case.jobs, batch=case.batch))),
        _Side("C our worker, one by one", lambda: _ours(run, case, weights, max_batch=1)),
        _Side("D our worker, as batches form", lambda: _ours(run, case, weights, max_batch=case.batch)),
    )
    plain.rate(2, batch=1)
    plain.rate(case.batch, batch=case.batch)
    found: dict[str, list[_Rate]] = {side.name: [] for side in sides}
    for number, side in interleaved(run.rounds, sides):
        run.say(f"gpu: {case.name}, round {number + 1} of {run.rounds}: {side.name}")
        found[side.name].append(side.measure())
    plain.forget()
    return _table(case, found, device=device)


def _ours(run: Run, case: Case, weights: Path, *, max_batch: int) -> _Rate:
    """Start a worker and a relay, let them load and warm up, and time a backlog that appears at once."""
    house = run.house
    file = house.stack.state / f"models-{max_batch}.yaml"
    file.write_text(yaml.safe_dump(case.catalog(str(weights), max_batch=max_batch)))
    known = catalog.load(file)
    house.empty()
    with ExitStack() as started:
        for program in _programs(run, file):
            started.enter_context(program)
        _submit(run, case, known, jobs=2 * max_batch + SLOTS)
        _await(run)
        house.empty()
        _submit(run, case, known, jobs=case.jobs)
        _await(run)
    return _figures(run, case)


def _programs(run: Run, models_file: Path) -> list[Running]:
    house = run.house
    environment = {"DARKROOM_MODELS_FILE": str(models_file), "DARKROOM_GPU_WARM": "bench"}
    if not torch.cuda.is_available():
        environment["OMP_NUM_THREADS"] = "1"
    worker = [
        *(PYTHON, "-m", "celery", "-A", "workers", "worker", "-Q", QUEUE, "-n", "gpu@%h"),
        *("-P", "threads", "-c", str(SLOTS), "--without-gossip", "--without-mingle", "--loglevel=INFO"),
    ]
    relay = [PYTHON, "-c", "from app.cli import main; main()", "relay"]
    return [
        house.start("gpu worker", worker, ready=lambda: house.live_slots() == SLOTS, **environment),
        house.start("gpu relay", relay, ready=lambda: True, **environment),
    ]


def _submit(run: Run, case: Case, known: catalog.Catalog, *, jobs: int) -> None:
    target = known.models[0].targets[0]
    spec = JobSpec(
        operation=Operation.TEXT_TO_IMAGE,
        model="bench",
        prompt=case.prompt,
        width=case.side,
        height=case.side,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance,
        seed=1,
        output_format=ImageFormat.JPEG,
    )
    with run.house.database.transaction() as tx:
        tx.exec_driver_sql(
            "INSERT INTO jobs (id, account_id, dialect, operation, model, provider, target_model, queue, "
            "batch_key, status, spec, output_prefix, max_attempts) SELECT gen_random_uuid(), "
            "%(account_id)s, 'jobs', "
            "'text_to_image', 'bench', 'diffusers', 'bench', %(queue)s, %(batch_key)s, 'queued', "
            # Each with words of its own: the worker remembers prompts that it has read.
            "%(spec)s::jsonb || jsonb_build_object('prompt', %(prompt)s || ' ' || n), "
            "gen_random_uuid(), 5 FROM generate_series(1, %(jobs)s) AS n",
            {
                "account_id": run.house.account_id,
                "queue": QUEUE,
                "batch_key": known.batch_key(spec, target),
                "spec": spec.as_stored(),
                "prompt": case.prompt,
                "jobs": jobs,
            },
        )
        tx.exec_driver_sql("SELECT pg_notify(%(channel)s, '')", {"channel": bell.JOBS})


def _await(run: Run) -> None:
    if not wait_until(lambda: run.house.unfinished() == 0, within=_STUCK, every=0.05):
        raise SetupError(f"{run.house.unfinished()} jobs of the bench are not done after {_STUCK}")
    run.house.completed_at()  # says so if one failed


def _figures(run: Run, case: Case) -> _Rate:
    """Read from the jobs' own history how long it took, and how much of that the device drew."""
    with run.house.database.autocommit() as tx:
        row = tx.exec_driver_sql(
            "SELECT extract(epoch FROM max(j.finished_at) - min(j.started_at))::float AS seconds, "
            "sum((e.detail->'seconds'->>'generate')::float / e.rows)::float AS drawing, "
            "count(*) / sum(1.0 / e.rows)::float AS per_call "
            "FROM jobs j JOIN (SELECT job_id, detail, (detail->'batch_sizes'->>0)::int AS rows "
            "FROM job_events WHERE reason = 'completed') e ON e.job_id = j.id"
        ).one()
    return _Rate(images=case.jobs / row.seconds, busy=row.drawing / row.seconds, calls=row.per_call)


def _table(case: Case, found: dict[str, list[_Rate]], *, device: str) -> Table:
    table = Table(
        f"GPU worker, {case.name} ({_device(device)})",
        ("", "images/s", "÷ A", "÷ B", "images per call", "device busy"),
        notes=[_note(case, device)],
    )
    rates = [series(rounds, lambda one: one.images) for rounds in found.values()]
    one_by_one, by_hand = rates[0], rates[1]
    for (name, rounds), rate in zip(found.items(), rates, strict=True):
        ours = name[0] in "CD"
        busy = series(rounds, lambda one: one.busy)
        table.rows.append(
            (
                name,
                rate.show(".2f"),
                _against(rate, one_by_one, OVERHEAD_GOAL if name[0] == "C" else None),
                _against(rate, by_hand, BATCH_GOAL if name[0] == "D" else None),
                f"{series(rounds, lambda one: one.calls).median:.1f}" if ours else "",
                against_goal(busy, at_least=BUSY_GOAL) if ours else "",
            )
        )
    return table


def _against(ours: Series, base: Series, goal: float | None) -> str:
    found = ratios(ours, base)
    return found.show(".2f") if goal is None else against_goal(found, at_least=goal)


def _device(device: str) -> str:
    return "CPU" if device == "cpu" else torch.cuda.get_device_name(device)


def _note(case: Case, device: str) -> str:
    cpu = (
        " No GPU was at hand: thumbnails of the architecture on one core, with PostgreSQL, the store, the "
        "relay and all encoding on what is left of the machine. The ratios show the mechanism; they say "
        "nothing about a GPU."
        if device == "cpu"
        else ""
    )
    return f"Random weights: speed only. {case.jobs} jobs at once, batches of up to {case.batch}.{cpu}"
