"""The package's layout: imports point down, torch in one folder, a dialect's names in another."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hunyuan_local

PACKAGE = Path(hunyuan_local.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
# From the top down; a module or folder may import from those in the lines below its own.
ORDER = (
    ("__main__",),
    ("cli",),
    ("ui",),
    ("batch", "bench", "server"),
    ("jobs",),
    ("backends",),
    ("planner",),
    ("pipeline", "wires"),
    ("provenance", "weights"),
    ("capabilities", "frame_checks", "rewriting", "video"),
    ("config",),
    ("resolved",),
    ("schema",),
    ("field_checks",),
    ("stdio",),
    ("errors",),
    ("durable", "durations", "exit_codes", "json_text", "signals", "supervision"),
)
LEVELS = {unit: level for level, units in enumerate(ORDER) for unit in units}
HEAVY = {"torch", "diffusers", "transformers"}
# Names that only dialects use; names that are also ours (prompt, seed, width) may occur anywhere.
DIALECT_NAMES = (
    # WaveSpeed
    "enable_sync_mode",
    "enable_base64_output",
    "has_nsfw_contents",
    "deleted_count",
    # Novita
    "model_name",
    "task_id",
    "task_type",
    "video_url",
    "video_url_ttl",
    "video_type",
    "event_type",
    r"TASK_STATUS_\w+",
    # OpenAI
    "extra_body",
    "extra_params",
    "input_reference",
    "in_progress",
    "first_id",
    "last_id",
    "has_more",
)


def unit_of(path: Path) -> str:
    """The module or folder right under the package that a file belongs to; empty for the package itself."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


@pytest.fixture(scope="module")
def trees() -> dict[Path, list[ast.AST]]:
    """The nodes of every file of the package, parsed and walked once."""
    return {path: list(ast.walk(ast.parse(path.read_text()))) for path in SOURCES}


def imports(path: Path, tree: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import in a file, also of those inside functions."""
    package = ("hunyuan_local", *path.relative_to(PACKAGE).parts[:-1])
    for node in tree:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def targets(trees: dict[Path, list[ast.AST]]) -> dict[str, set[str]]:
    """Each module of the package and those that it imports, also inside functions and for types alone."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in trees}
    modules = {name.removesuffix(".__init__"): path for name, path in names.items()}
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        both = [(full, full.rpartition(".")[0]) for _, full in imports(path, trees[path])]
        found[name] = {full if full in modules else stem for full, stem in both if full in modules or stem in modules}
    return found


def circle(graph: dict[str, Iterable[str]]) -> list[str]:
    """A cycle in the graph; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def words(tree: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, text) of every name and every string in a file."""
    for node in tree:
        for field in ("id", "attr", "arg", "name", "asname", "value"):
            text = getattr(node, field, None)
            if isinstance(text, str):
                yield getattr(node, "lineno", 0), text


def at(path: Path, line: int, what: str) -> str:
    """A location in the package in the format of editors."""
    return f"{path.relative_to(PACKAGE.parent)}:{line}: {what}"


def test_every_module_has_its_place_in_the_order() -> None:
    assert {unit_of(path) for path in SOURCES} - {""} <= LEVELS.keys()


def test_imports_point_down(trees: dict[Path, list[ast.AST]]) -> None:
    wrong = []
    for path, tree in trees.items():
        own = unit_of(path)
        for line, name in imports(path, tree):
            parts = name.split(".")
            if parts[0] != "hunyuan_local" or own == "":
                continue
            unit = parts[1] if len(parts) > 1 else ""
            if unit != own and not LEVELS.get(unit, -1) > LEVELS[own]:
                wrong.append(at(path, line, name))
    assert wrong == []


def test_no_modules_import_each_other(trees: dict[Path, list[ast.AST]]) -> None:
    assert circle({name: found - {name} for name, found in targets(trees).items()}) == []


def test_nor_do_the_folders_and_modules_of_a_folder(trees: dict[Path, list[ast.AST]]) -> None:
    """Within each folder: what is right inside it, a module or a folder, is one room."""
    graph = targets(trees)
    for folder in {name.rpartition(".")[0] for name in graph if "." in name}:
        rooms: dict[str, set[str]] = {}
        for name, found in graph.items():
            if name.startswith(f"{folder}."):
                own = name.removeprefix(f"{folder}.").split(".")[0]
                others = {one.removeprefix(f"{folder}.").split(".")[0] for one in found if one.startswith(f"{folder}.")}
                rooms.setdefault(own, set()).update(others - {own})
        assert circle(rooms) == [], folder


def test_only_the_pipeline_imports_torch(trees: dict[Path, list[ast.AST]]) -> None:
    assert [
        at(path, line, name)
        for path, tree in trees.items()
        for line, name in imports(path, tree)
        if name.split(".")[0] in HEAVY and unit_of(path) != "pipeline"
    ] == []


def test_the_dialects_and_capabilities_load_neither_torch_nor_an_http_client(starts_process: None) -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "import hunyuan_local.capabilities, hunyuan_local.wires as wires\n"
        "for module in pkgutil.iter_modules(wires.__path__, 'hunyuan_local.wires.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*sorted({'torch', 'diffusers', 'transformers', 'numpy', 'httpx', 'fastapi'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_names_of_a_dialect_are_in_wires_alone(trees: dict[Path, list[ast.AST]]) -> None:
    pattern = re.compile(rf"\b({'|'.join(DIALECT_NAMES)})\b")
    assert [
        at(path, line, text[:60])
        for path, tree in trees.items()
        for line, text in words(tree)
        if pattern.search(text) and unit_of(path) != "wires"
    ] == []


def test_each_of_those_names_is_indeed_one_of_a_dialect() -> None:
    wires = "\n".join(path.read_text() for path in SOURCES if unit_of(path) == "wires")
    assert [name for name in DIALECT_NAMES if not re.search(rf"\b{name}\b", wires)] == []


# docs/structure.md


@pytest.fixture(scope="module")
def structure() -> str:
    """The page that describes the structure."""
    return (Path(__file__).resolve().parent.parent / "docs" / "structure.md").read_text()


def test_the_page_has_a_line_for_each_folder(structure: str) -> None:
    rows = [line.split("|")[1] for line in structure.splitlines() if line.startswith("| `")]
    named = {name.removeprefix("hunyuan_local/").rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)}
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in SOURCES if path.name != "__init__.py"}
    assert named == {"" if folder == "." else folder for folder in folders - {"cli/commands", "cli/shared"}}


def test_the_files_that_the_page_names_are_there(structure: str) -> None:
    names = re.findall(r"`([\w/]+\.py)`", structure)
    assert len(names) > 20
    paths = [path.as_posix() for path in SOURCES]
    assert [name for name in names if not any(path.endswith(f"/{name}") for path in paths)] == []
