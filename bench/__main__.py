"""`python -m bench`: measures this checkout and prints ratios. Nothing here ever fails for being slow."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from app import log
from app.errors import SetupError
from bench import accept, chain, pictures, publish, report, servers
from bench.house import open_house
from bench.numbers import Table
from bench.run import Run


def _measure_gpu(run: Run) -> list[Table]:
    try:
        from bench import gpu  # noqa: PLC0415 - torch takes seconds to import
    except ImportError as error:
        raise SetupError(f"The GPU engine is not installed ({error}); run: make gpu") from error
    return gpu.measure(run)


SECTIONS: Final[dict[str, Callable[[Run], list[Table]]]] = {
    "accept": accept.measure,
    "endtoend": chain.measure,
    "relay": publish.measure,
    "png": pictures.measure_png,
    "finisher": pictures.measure_finisher,
    "wsgi": servers.measure,
    "gpu": _measure_gpu,
}
BY_DEFAULT: Final = ("accept", "endtoend", "relay", "png", "finisher")


def _chosen(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if unknown := set(names) - set(SECTIONS):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(SECTIONS)}")
    return names


@click.command()
@click.option(
    "--only",
    callback=_chosen,
    default=",".join(BY_DEFAULT),
    show_default=True,
    help=f"Sections, separated by commas, from: {', '.join(SECTIONS)}.",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0.2), default=2.5, show_default=True, help="Of one measurement."
)
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Also write the report here."
)
def main(only: list[str], rounds: int, seconds: float, markdown: Path | None) -> None:
    """Measure Darkroom against bare baselines in the same minute: A, B, A, B, …; medians [min-max]."""
    # A shell starts what runs in the background deaf to Ctrl-C; whoever sends it wants everything to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    log.configure(log_format="console", level="warning")
    out = report.console()
    began = time.monotonic()

    def say(what: str) -> None:
        out.print(f"[dim]{time.monotonic() - began:5.0f} s  {what}[/dim]", highlight=False)

    tables: list[Table] = []
    try:
        with open_house(say) as house:
            for name in only:
                found = SECTIONS[name](Run(house=house, rounds=rounds, seconds=seconds, say=say))
                tables.extend(found)
                for table in found:
                    report.draw(table, out)
    except SetupError as error:
        raise click.ClickException(error.message) from error
    facts = report.circumstances(sys.argv[1:])
    for name, fact in facts.items():
        out.print(f"  {name:<13} {fact}", markup=False, highlight=False)
    if markdown is not None:
        markdown.write_text(report.markdown(tables, facts))
        out.print(f"\nWritten to {markdown}.")
    out.print(
        "\nRatios travel between machines, rates do not. What was decided from such numbers:"
        "\ndocs/decisions/0003-wsgi-server.md; the other sections: python -m bench --help",
        highlight=False,
    )


if __name__ == "__main__":
    main()
