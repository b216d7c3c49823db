"""Which kind of worker a queue wants, told by its name."""

from typing import Final

GPU: Final = "gpu."
"""Begin of the names of queues that our own GPUs work: one process for each GPU."""
UPSTREAM: Final = "provider."

GPU_SLOTS: Final = 2
"""One draws while the other encodes and uploads: 73 % of the time a GPU was busy with two, 93 % with three,
where an upload took as long as a drawing (gpu.md 3.5)."""
UPSTREAM_SLOTS: Final = 8
"""They only wait. How many calls an account takes at a time is its `concurrency`."""
CPU_SLOTS: Final = 2


def pool_of(queue: str) -> tuple[str, ...]:
    """Give the options of `celery worker` for a queue that draws.

    Threads where CUDA is used, which does not survive a fork, and where workers wait; processes where they
    compute on untrusted images.
    """
    if queue.startswith(GPU):
        return ("-P", "threads", "-c", str(GPU_SLOTS))
    if queue.startswith(UPSTREAM):
        return ("-P", "threads", "-c", str(UPSTREAM_SLOTS))
    return ("-P", "prefork", "-c", str(CPU_SLOTS))


def gpu_of(queue: str) -> str | None:
    """Give the number of the GPU that a queue called `gpu.<number>` is for; None: its name does not say."""
    number = queue.removeprefix(GPU)
    return number if queue.startswith(GPU) and number.isdecimal() else None
