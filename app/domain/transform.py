"""Transformations of a given image, as pure rules (interim: being written)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.domain.formats import ImageFormat
from app.errors import FieldProblem


class _T(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Resize(_T):
    """Another size."""

    operation: Literal["resize"] = "resize"


class Import(_T):
    """The image itself, encoded anew."""

    operation: Literal["import"] = "import"


Transform = Annotated[Resize | Import, Field(discriminator="operation")]


def problems_with(transform: Transform, width: int, height: int, source: ImageFormat) -> list[FieldProblem]:
    """Give what only the source can tell."""
    del transform, width, height, source
    return []


def result_format(transform: Transform, source: ImageFormat) -> ImageFormat:
    """Give the format of the result."""
    del transform
    return source
