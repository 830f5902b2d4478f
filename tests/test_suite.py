"""The suite's own rules: layers, the guard, what ``-k`` matches, groups, and the command for a failed test."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import suite

TESTS = Path(suite.__file__).parent


def with_keyword(expression: str, *paths: str, quick: bool = False) -> SimpleNamespace:
    """A configuration of pytest with ``-k`` and paths, and ``--quick``."""
    options = {"keyword": expression, "quick": quick}
    return SimpleNamespace(
        getoption=options.__getitem__, args=list(paths), invocation_params=SimpleNamespace(dir=TESTS.parent)
    )


@pytest.mark.parametrize(
    ("fixtures", "layer"),
    [
        ([], "quick"), (["tmp_path"], "quick"), (["loads_model"], "model"), (["starts_process"], "process"),
        (["loads_model", "starts_process"], "process"),
    ],
)  # fmt: skip
def test_the_layer_follows_from_the_dearest_fixture(fixtures: list[str], layer: str) -> None:
    assert suite.layer_of(SimpleNamespace(fixturenames=fixtures)) == layer


def test_a_quick_test_that_starts_a_process_is_reported_what_to_ask_for() -> None:
    with pytest.raises(AssertionError, match="ask for the fixture starts_process"):
        subprocess.run([sys.executable, "-c", ""])
    assert len(suite.GUARD.take_refusals()) == 1


def test_a_quick_test_that_spawns_a_process_is_reported_what_to_ask_for() -> None:
    with pytest.raises(AssertionError, match="ask for the fixture starts_process"):
        multiprocessing.get_context("spawn").Process(target=print).start()
    assert suite.GUARD.take_refusals()


def test_a_refusal_that_was_swallowed_is_remembered() -> None:
    with contextlib.suppress(AssertionError):
        subprocess.run([sys.executable, "-c", ""])
    assert "it has to ask for the fixture starts_process" in suite.GUARD.take_refusals()[0]


def test_a_quick_test_that_reads_weights_is_reported_what_to_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        @classmethod
        def from_pretrained(cls, folder: str) -> str:
            return f"a model from {folder}"

    monkeypatch.setitem(suite.GUARD._unwrapped, "a_library", "Model")
    monkeypatch.setitem(sys.modules, "a_library", SimpleNamespace(Model=Model))
    suite.GUARD._wrap_libraries()
    with pytest.raises(AssertionError, match="ask for the fixture loads_model"):
        Model.from_pretrained("a folder")
    assert suite.GUARD.take_refusals()


@pytest.mark.parametrize(("module", "cls"), suite.READERS.items())
def test_the_classes_that_read_weights_are_still_called_so(module: str, cls: str) -> None:
    assert callable(getattr(importlib.import_module(module), cls).from_pretrained)


def test_other_layers_may_do_both(starts_process: None) -> None:
    assert subprocess.run([sys.executable, "-c", ""]).returncode == 0


@pytest.mark.parametrize(
    "expression", ["", "Schema or nothing_has_this_name", "refused and (schema)", "not schema", "(("]
)
def test_files_with_the_word_are_read(expression: str) -> None:
    assert not suite.is_passed_over(TESTS / "test_schema.py", with_keyword(expression))


@pytest.mark.parametrize("expression", ["nothing_has_this_name", "schema and nothing_has_this_name"])
def test_files_without_the_words_are_not_read(expression: str) -> None:
    assert suite.is_passed_over(TESTS / "test_schema.py", with_keyword(expression))


def test_imports_are_no_reason_to_read_a_file() -> None:
    assert "from hunyuan_local.frame_checks import" in (TESTS / "test_frame_checks.py").read_text()
    assert suite.is_passed_over(TESTS / "test_frame_checks.py", with_keyword("__future__"))


def test_a_file_that_is_named_is_read(tmp_path: Path) -> None:
    config = with_keyword("nothing_has_this_name", "tests/test_schema.py::test_a")
    assert not suite.is_passed_over(TESTS / "test_schema.py", config)


@pytest.mark.parametrize("quick", [True, False])
def test_others_clients_are_not_imported_for_quick_tests(quick: bool) -> None:
    found = suite.is_passed_over(TESTS / suite.NEVER_QUICK / "test_openai_client.py", with_keyword("", quick=quick))
    assert found == quick


def test_no_folder_that_is_passed_over_holds_a_quick_test(request: pytest.FixtureRequest) -> None:
    items = [item for item in request.session.items if item.path.is_relative_to(TESTS / suite.NEVER_QUICK)]
    assert {suite.layer_of(item) for item in items} <= {"model", "process"}


def test_no_two_files_have_one_name() -> None:
    """pytest would confuse them, because the folders are not packages."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("file", suite.LONGEST)
def test_the_longest_files_are_there(file: str) -> None:
    assert (TESTS / file).is_file()


@pytest.mark.parametrize(
    ("nodeid", "command"),
    [
        ("tests/test_a.py::test_b", "scripts/test tests/test_a.py::test_b"),
        ("tests/test_a.py::test_b[x y]", "scripts/test 'tests/test_a.py::test_b[x y]'"),
    ],
)
def test_a_failed_test_names_the_command_that_runs_it_alone(nodeid: str, command: str) -> None:
    report = SimpleNamespace(failed=True, nodeid=nodeid, sections=[])
    suite.add_command(report)
    assert report.sections == [("To run it alone", command)]


def test_a_test_that_passed_names_none() -> None:
    report = SimpleNamespace(failed=False, nodeid="tests/test_a.py::test_b", sections=[])
    suite.add_command(report)
    assert report.sections == []


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/test_a.py::test_b[x::y]", "test_a.py"),
        ("tests/jobs/test_pool.py::test_b", "jobs/test_pool.py"),
        ("tests/clients/test_a.py::test_b", "clients"),
        ("tests/clients/test_c.py::test_d", "clients"),
    ],
)
def test_what_shares_something_dear_runs_in_one_worker(nodeid: str, group: str) -> None:
    assert suite.Scheduler._split_scope(None, nodeid) == group
