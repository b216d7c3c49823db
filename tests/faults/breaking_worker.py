"""The product's Celery app on a GPU that breaks whenever it is to draw the word `short-circuit`."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from workers.celery import app
from workers.providers.diffusers import provider
from workers.providers.diffusers.calls import Row, Shape, draw
from workers.providers.diffusers.model import Model

__all__ = ["app"]


def _draw_or_break(model: Model, shape: Shape, rows: Sequence[Row], **hooks: Any) -> list[Image.Image | None]:
    if any("short-circuit" in row.wording[0] for row in rows):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return draw(model, shape, rows, **hooks)


provider.draw = _draw_or_break  # type: ignore[attr-defined]  # there it is called
