"""The list of injected faults fits the package, and the tool reports which tests catch each."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
GATE = "tests/test_frame_checks.py"
WHERE = "self._brightest = 0"
CAUGHT = {"id": "caught", "what": "all is bright", "find": WHERE, "replace": "self._brightest = 255", "tests": [GATE]}
MISSED = {"id": "missed", "what": "nothing", "find": WHERE, "replace": "self._brightest = 0 + 0", "tests": [GATE]}


def load_tool() -> ModuleType:
    """``scripts/faults`` as a module; its file has no extension."""
    loader = importlib.machinery.SourceFileLoader("faults", str(ROOT / "scripts" / "faults"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("faults", loader))
    sys.modules["faults"] = module
    loader.exec_module(module)
    return module


tool = load_tool()
FAULTS = tool.read_faults()


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 40 and sum(fault.whole for fault in FAULTS) >= 12


def test_each_has_a_name_of_its_own() -> None:
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)


def test_each_fits_exactly_one_place_and_leaves_code_that_can_be_read() -> None:
    for fault in FAULTS:
        place = fault.place(ROOT)
        changed = place.read_text().replace(fault.find, fault.replace)
        ast.parse(changed) if place.suffix == ".py" else yaml.safe_load(changed)


def test_the_tests_that_should_catch_it_are_there() -> None:
    named = {test for fault in FAULTS for test in fault.tests}
    assert [test for test in sorted(named) if not is_there(*test.split("::"))] == []


def is_there(file: str, name: str = "") -> bool:
    """Whether a file, or a test in it, exists; a name in brackets at the end is a parameter's."""
    path = ROOT / file
    return path.exists() and (not name or f"def {name.partition('[')[0]}(" in path.read_text())


def test_a_fault_that_no_longer_fits_is_named() -> None:
    fault = tool.Fault("gone", "", "text that is nowhere in the package", "", [])
    with pytest.raises(ValueError, match="gone: the text occurs 0 times, must occur once"):
        fault.place(ROOT)


def test_what_failed_is_read_from_pytests_summary(tmp_path: Path) -> None:
    said = (
        "..F\nFAILED tests/a.py::test_b[x y] - AssertionError: no\nERROR tests/c.py\nFAILED tests/a.py::test_d@a.py\n"
    )
    assert tool.failed_tests(said) == ["tests/a.py::test_b[x y]", "tests/a.py::test_d", "tests/c.py"]


@pytest.fixture(scope="module")
def tried(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The tool's output for a fault that is caught and one that is not, and the records that it keeps."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "faults.yaml").write_text(yaml.safe_dump([CAUGHT, MISSED]))
    command = [sys.executable, ROOT / "scripts" / "faults", "--list", folder / "faults.yaml", "--no-control"]
    done = subprocess.run([*command, "--record", folder / "record.json"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return done.stdout, json.loads((folder / "record.json").read_text())


def test_what_catches_a_fault_is_reported_and_kept(tried: tuple[str, dict[str, Any]]) -> None:
    said, kept = tried
    assert "caught by" in said
    assert kept["caught"]["failed"] and all(test.startswith(GATE) for test in kept["caught"]["failed"])


def test_a_fault_that_nothing_catches_is_reported(tried: tuple[str, dict[str, Any]]) -> None:
    said, kept = tried
    assert "1 of 2 as expected; not: missed" in said
    assert kept["missed"] == kept["missed"] | {"failed": [], "ended": ""}


def test_the_code_itself_is_left_as_it_is(tried: tuple[str, dict[str, Any]]) -> None:
    assert tool.Fault(**CAUGHT).place(ROOT)
