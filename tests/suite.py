"""How the suite runs: its layers, what is collected, in which order, and how to run a failed test alone.

A test belongs to the layer of the most expensive fixture that it uses. Expensive fixtures request one of two others:
``loads_model`` (reads weights or generates a video) or ``starts_process`` (runs a program: ours, ffmpeg, Node, a
browser). A test that requests neither is quick, and a guard enforces that: if it starts a process or reads weights
anyway, it fails and names the missing fixture. ``pytestmark = pytest.mark.usefixtures(...)`` requests a fixture for a
whole file, an autouse fixture in a ``conftest.py`` for a whole folder.
"""

from __future__ import annotations

import ast
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from multiprocessing import util
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).resolve().parent
# The most expensive first; a test that requests several is in the layer of the first.
LAYERS = {"starts_process": "process", "loads_model": "model"}
QUICK = "quick"
# Files whose tests share an expensive object run in one worker, where it is created once.
TOGETHER = ("clients/", "jobs/test_ray")
# The quick layer does not import this folder: the published clients take seconds to import.
NEVER_QUICK = "clients"
# Seconds on two slow cores for the slowest files; they start first, so that none is left for the end.
LONGEST = {
    "clients/test_wavespeed_clients.py": 120,
    "ui/test_page_in_browser.py": 110,
    "jobs/test_ray_pool.py": 90,
    "test_extras.py": 80,
    "test_docs.py": 70,
    "batch/test_batch_crash.py": 60,
    "jobs/test_pool.py": 50,
    "bench/test_bench_end_to_end.py": 50,
    "test_context_parallel.py": 50,
    "server/test_crash.py": 45,
    "test_cli.py": 45,
    "test_quantization.py": 40,
    "test_train_tiny.py": 40,
    "batch/test_cli_batch.py": 40,
    "test_equivalence.py": 35,
    "test_context_parallel_exactness.py": 30,
    "test_gpu_check.py": 60,
    "test_out_of_memory.py": 25,
    "server/test_small_disk.py": 25,
}
# Hidden during collection, which takes a fifth less time without them. diffusers and transformers import scipy wherever
# it is installed; bitsandbytes imports the compiler for functions that it also runs without. Tests may import both.
HIDDEN = ("scipy", "torch._inductor.compile_fx")
# Python's audit events for starting a process.
PROCESS_EVENTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system"})

# Classes of the libraries that read weights, by their modules.
READERS = {"diffusers.models.modeling_utils": "ModelMixin", "transformers.modeling_utils": "PreTrainedModel"}


def layer_of(item: pytest.Item) -> str:
    """``process``, ``model`` or ``quick``."""
    names = set(getattr(item, "fixturenames", ()))
    return next((layer for fixture, layer in LAYERS.items() if fixture in names), QUICK)


# ---- the command line ------------------------------------------------------------------------------------------------


def add_options(parser: pytest.Parser) -> None:
    """Add ``--quick``."""
    parser.addoption("--quick", action="store_true", help="only tests that load no model and start no process")


def configure(config: pytest.Config) -> None:
    """Register the layers' markers and the guard."""
    config.addinivalue_line("markers", "quick: loads no model and starts no process; set by fixtures")
    config.addinivalue_line("markers", "model: loads a model; set by fixtures")
    config.addinivalue_line("markers", "process: starts a process; set by fixtures")


# ---- what is collected -----------------------------------------------------------------------------------------------


def is_passed_over(path: Path, config: pytest.Config) -> bool:
    """Whether a file cannot contain a requested test, according to ``--quick`` or ``-k``, without importing it."""
    if config.getoption("quick") and path.is_relative_to(TESTS / NEVER_QUICK):
        return True
    if path.suffix != ".py" or not path.name.startswith("test_") or _is_named(path, config):
        return False
    return not _may_match(path, config.getoption("keyword").lower())


def _is_named(path: Path, config: pytest.Config) -> bool:
    """Whether the command line names this file."""
    named = {Path(config.invocation_params.dir, argument.split("::")[0]).resolve() for argument in config.args}
    return path.resolve() in named


def _may_match(path: Path, expression: str) -> bool:
    """Evaluate the ``-k`` expression, where a word is true if the file contains it; any ``not`` counts as a match."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    if not tokens or "not" in tokens:
        return True
    known = {"and", "or", "(", ")"}
    values = [token if token in known else str(token in _names_in(path)) for token in tokens]
    try:
        return bool(eval(" ".join(values), {}))  # nothing but True, False, and, or, ( and )
    except SyntaxError:  # pytest reports the error
        return True


@cache
def _names_in(path: Path) -> str:
    """Everything that can be part of test ids: path, names, strings and numbers of the source, without its imports."""
    tree = ast.parse(path.read_text())
    words = [path.relative_to(TESTS.parent).as_posix()]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words.append(node.name)
        elif isinstance(node, ast.Name):
            words.append(node.id)
        elif isinstance(node, ast.Constant) and not (isinstance(node.value, str) and " " in node.value):
            words.append(str(node.value))
    return "\n".join(words).lower()


def hide_slow_libraries() -> None:
    """Let every import of them fail, as where they are not installed."""
    for name in HIDDEN:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def show_slow_libraries() -> None:
    """Let tests import them."""
    for name in HIDDEN:
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]


def let_loggers_propagate() -> None:
    """Reset torch's sixty loggers: pytest adds its handlers to each logger that does not propagate, for every test."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch") and isinstance(logger, logging.Logger):
            logger.propagate = True


# ---- in which order --------------------------------------------------------------------------------------------------


def arrange(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with its layer, drop tests that were not requested, and put the longest files first."""
    for item in items:
        item.add_marker(layer_of(item))
    if config.getoption("quick"):
        kept = [item for item in items if item.get_closest_marker(QUICK)]
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker(QUICK)])
        items[:] = kept
    items.sort(key=lambda item: -_seconds(item.path.relative_to(TESTS).as_posix()))


class Scheduler(LoadScopeScheduling):
    """Gives whole groups to pytest-xdist's workers, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.split("::")[0].removeprefix(f"{TESTS.name}/"))


def _group(file: str) -> str:
    """The unit that one worker runs: a file, or files that share an object."""
    return next((shared.rstrip("/") for shared in TOGETHER if file.startswith(shared)), file)


def _seconds(file: str) -> int:
    """Seconds that its group takes; 0 if that is short."""
    return sum(seconds for name, seconds in LONGEST.items() if _group(name) == _group(file))


# ---- how to run one alone --------------------------------------------------------------------------------------------


def add_command(report: pytest.TestReport) -> None:
    """Put the command that runs a failed test alone under its traceback."""
    if report.failed:
        report.sections.append(("To run it alone", f"scripts/test {shlex.quote(report.nodeid)}"))


# ---- the guard -------------------------------------------------------------------------------------------------------


class Guard:
    """Refuses, while a quick test and its fixtures run, what belongs to another layer.

    A refusal is an error where it happens; if that error was suppressed, the test fails at its end.
    """

    def __init__(self) -> None:
        self._is_on = False
        self._unwrapped = dict(READERS)
        self._refused: list[str] = []
        sys.addaudithook(self._hear)
        # Python raises no audit event for the processes that it spawns for multiprocessing.
        util.spawnv_passfds = self._heard(util.spawnv_passfds, "starts a process (multiprocessing)", "starts_process")

    @contextmanager
    def watching(self, item: pytest.Item) -> Iterator[None]:
        """On for a quick test, off for any other."""
        self._wrap_libraries()
        self._refused.clear()
        self._is_on = layer_of(item) == QUICK
        try:
            yield
        finally:
            self._is_on = False

    def take_refusals(self) -> list[str]:
        """What was refused since the last call."""
        taken, self._refused = self._refused, []
        return taken

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in PROCESS_EVENTS:
            self._refuse(f"starts a process ({event})", "starts_process")

    def _refuse(self, what: str, fixture: str) -> None:
        if self._is_on:
            self._refused.append(f"a quick test {what}: it has to ask for the fixture {fixture}")
            raise AssertionError(self._refused[-1])

    def _wrap_libraries(self) -> None:
        """Watch the functions that read weights, once their library is imported."""
        for name, cls in list(self._unwrapped.items()):
            if (module := sys.modules.get(name)) is not None and hasattr(module, cls):
                reader = getattr(module, cls)
                read = reader.from_pretrained.__func__
                reader.from_pretrained = classmethod(self._heard(read, "reads the weights of a model", "loads_model"))
                del self._unwrapped[name]

    def _heard(self, do: Callable[..., Any], what: str, fixture: str) -> Callable[..., Any]:
        @wraps(do)
        def heard(*arguments: Any, **options: Any) -> Any:
            self._refuse(what, fixture)
            return do(*arguments, **options)

        return heard


GUARD = Guard()
