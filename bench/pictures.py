"""What happens to a drawn picture: PNG encoding against Pillow's, and uploads beside the next compute."""

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from PIL import Image

from app import imaging
from app.db import bell, connect
from app.domain.spec import ImageFormat
from app.storage import Storage, open_store
from bench.drawers import COMPUTE_SECONDS, Timed
from bench.house import House, spec_of
from bench.numbers import Series, Table, against_goal, interleaved, ratios
from bench.run import Run
from workers.leases import Leases
from workers.providers.base import Attempt, Inputs
from workers.runner import Kind, Runner

SIDE = 1024
PNG_GOAL = 8.0
BASE = "Pillow's default"
USE_GOAL = 0.95
_JOBS = 6
_IMAGES = 6
_SLOTS = 2
"""Jobs a GPU worker runs at a time, all around one GPU."""
_GRAIN = 6.0
"""Standard deviation of the noise; of 255."""
_DISC = 0.2


def photograph() -> Image.Image:
    """Give a picture like a photograph: smooth light, a few edges, grain; the same each time."""
    noise = np.random.default_rng(7)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    light = np.stack([120 + 90 * np.sin(3 * x + k) * np.cos(2 * y - k) for k in range(3)], axis=-1)
    light[np.hypot(x - 0.5, y - 0.4) < _DISC] += 60
    grainy = light + noise.normal(0, _GRAIN, light.shape)
    return Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))


def measure_png(run: Run) -> list[Table]:
    """Give the table of the encoders."""
    picture = photograph()
    sides: dict[str, Callable[[], bytes]] = {
        "Darkroom": lambda: imaging.encode(picture, ImageFormat.PNG, metadata={}),
        BASE: lambda: _pillow(picture),
        "Pillow, level 1": lambda: _pillow(picture, compress_level=1),
    }
    sizes = {name: len(encode()) for name, encode in sides.items()}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number, name in interleaved(run.rounds, list(sides)):
        run.say(f"png, round {number + 1} of {run.rounds}: {name}")
        found[name].append(_cpu_ms(sides[name], seconds=run.seconds / 4))
    table = Table(
        f"PNG of {SIDE}x{SIDE}, photograph with grain",
        ("", "CPU ms", "times faster than Pillow's default", "kB", "size"),
    )
    slow = Series(tuple(found[BASE]))
    for name, times in found.items():
        faster = ratios(slow, Series(tuple(times)))
        shown = against_goal(faster, at_least=PNG_GOAL) if name == "Darkroom" else faster.show(".1f")
        table.rows.append(
            (
                name,
                Series(tuple(times)).show(".1f"),
                shown,
                f"{sizes[name] / 1000:,.0f}",
                f"{sizes[name] / sizes[BASE]:.2f}",
            )
        )
    return [table]


def _pillow(picture: Image.Image, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def _cpu_ms(work: Callable[[], object], *, seconds: float) -> float:
    times: list[float] = []
    end = time.monotonic() + seconds
    while not times or time.monotonic() < end:
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return sorted(times)[len(times) // 2] * 1000


def measure_finisher(run: Run) -> list[Table]:
    """Give the table of the overlap: 6 jobs of 6 images, 60 ms of compute each, stored for real."""
    storage = open_store(run.house.settings)
    provider = Timed(photograph())
    with _runner(run.house, provider) as runner:
        sides: dict[str, Callable[[], None]] = {
            "runner: encode and upload beside the next": lambda: _run_jobs(run.house, runner),
            "inline: one after the other": lambda: _inline(provider, storage),
        }
        found: dict[str, list[float]] = {name: [] for name in sides}
        for number, name in interleaved(run.rounds, list(sides)):
            run.say(f"finisher, round {number + 1} of {run.rounds}: {name}")
            began = time.monotonic()
            sides[name]()
            found[name].append(COMPUTE_SECONDS * _JOBS * _IMAGES / (time.monotonic() - began))
    table = Table(
        f"Use of a simulated GPU: 60 ms per {SIDE}x{SIDE} PNG", ("", "share of the time it computes")
    )
    ours, *_ = sides
    for name, uses in found.items():
        use = Series(tuple(uses))
        table.rows.append((name, against_goal(use, at_least=USE_GOAL) if name == ours else use.show(".2f")))
    return [table]


@contextmanager
def _runner(house: House, provider: Timed) -> Iterator[Runner]:
    database = connect(house.settings, pool_size=6, application_name="darkroom bench")
    doorbell = bell.Doorbell(database)
    leases = Leases(
        house.settings,
        database,
        queues=["bench"],
        slots=_SLOTS,
        is_draining=lambda: False,
        doorbell=doorbell,
    )
    runner = Runner(
        house.settings,
        database=database,
        storage=open_store(house.settings),
        providers=lambda _: provider,
        leases=leases,
        doorbell=doorbell,
    )
    doorbell.start()
    leases.start()
    try:
        yield runner
    finally:
        runner.close()
        leases.stop()
        doorbell.stop()
        database.close()


def _run_jobs(house: House, runner: Runner) -> None:
    house.empty()
    house.add_jobs(_JOBS, spec_of("pixel", num_images=_IMAGES, side=SIDE))
    with ThreadPoolExecutor(_SLOTS) as slots:
        ended = set(slots.map(runner.run, house.job_ids()))
    assert ended == {Kind.COMPLETED}


def _inline(provider: Timed, storage: Storage) -> None:
    spec = spec_of("pixel", num_images=_IMAGES, side=SIDE)
    attempt = Attempt(check=lambda: None, progress=lambda _: None)
    for job in range(_JOBS):
        for index, picture in enumerate(provider.generate(spec, Inputs(), attempt)):
            data = imaging.encode(picture.image, ImageFormat.PNG, metadata={})
            storage.put(f"inline/{job}/{index}.png", data, media_type="image/png")
