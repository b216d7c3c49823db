"""What we believe about this house, each as a short test."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import __version__, dispatch
from app.domain import catalog

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("app", "workers", "migrations", "bench") for path in (ROOT / folder).rglob("*.py")
)
LONGEST_FILE = 400
LONGEST_FUNCTION = 50


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_files_and_functions_stay_small() -> None:
    for path in SOURCES:
        if "versions" in path.parts:
            continue  # a migration is a copy of a moment, as long as that was
        assert len(path.read_text().splitlines()) <= LONGEST_FILE, path
        for function in functions(path):
            assert function.end_lineno is not None
            length = function.end_lineno - function.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{path.name}: {function.name} has {length} lines"


def swallows_everything(node: ast.AST) -> bool:
    """Whether this is a handler for any exception that does not raise it again."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    broad = node.type is None or (
        isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
    )
    last = node.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def test_only_the_end_of_an_attempt_catches_everything() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if swallows_everything(node)
    ]

    assert found == ["workers/runner.py"]


def test_the_words_we_do_not_use_for_modules_are_not_used() -> None:
    for path in SOURCES:
        assert path.stem not in {"utils", "helpers", "common", "manager", "misc"}, path


def loaded_by(module: str) -> set[str]:
    """The top names of everything a fresh interpreter loads with a module."""
    program = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_web_side_loads_no_worker_and_no_provider() -> None:
    assert loaded_by("app.web") & {"workers", "celery", "torch"} == set()


def test_importing_a_workers_rooms_loads_no_web_server() -> None:
    assert loaded_by("workers.runner") & {"flask", "granian"} == set()


def test_a_worker_consumes_every_queue_that_relay_fills(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text((ROOT / "app/domain/models.yaml").read_text().replace("queue: cpu", "queue: gpu.a"))

    assert dispatch.all_queues(catalog.load(file)) == ["cpu", "gpu.a", "upkeep", "webhooks"]


def test_the_changelog_tells_what_this_version_brings() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    titles = re.findall(r"^## \[([^\]]+)\]", changelog, flags=re.MULTILINE)

    assert titles[0] in {"Unreleased", __version__}


def test_every_command_of_the_readme_is_a_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text())) <= targets


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.rglob("docs/**/*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_every_link_between_our_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_no_page_or_program_names_this_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    here = str(ROOT)
    for name in listed.stdout.split("\n"):
        path = ROOT / name
        if name and path.is_file() and path.suffix not in {".png", ".lock"}:
            assert len(here) < 8 or here not in path.read_text(errors="replace"), name
