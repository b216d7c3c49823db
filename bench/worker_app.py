"""The product's worker with the bench's providers: `celery -A bench.worker_app worker`."""

from workers import providers
from workers.celery import app

providers.add("bench_pixel", "bench.drawers:Pixel")
providers.add("bench_nothing", "bench.drawers:Nothing")

__all__ = ["app"]
