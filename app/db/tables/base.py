"""What all tables share: the metadata with its naming convention, and how columns and CHECKs are written."""

from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Column, DateTime, MetaData, text

metadata: Final = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_ix",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

NOW: Final = text("now()")
ZERO: Final = text("0")
FALSE: Final = text("false")


def moment(name: str, comment: str, **options: Any) -> Column[Any]:
    """Give a column for a point in time, with its time zone."""
    return Column(name, DateTime(timezone=True), comment=comment, **options)


def one_of(column: str, values: type[StrEnum]) -> str:
    """Give the CHECK that allows `column` only the values of an enum, in the enum's order."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"
