"""The list of hand-made faults still fits the package, and the tool that applies them tells what catches each."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = "tests/test_schema.py"


def load_tool() -> ModuleType:
    """``scripts/faults``, which is a program without an ending."""
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
    files = {test.split("::")[0] for fault in FAULTS for test in fault.tests}
    assert [file for file in sorted(files) if not (ROOT / file).is_file()] == []


def test_a_fault_that_no_longer_fits_is_named() -> None:
    fault = tool.Fault("gone", "", "text that is nowhere in the package", "", [])
    with pytest.raises(ValueError, match="gone: the text occurs 0 times, once is needed"):
        fault.place(ROOT)


def test_what_failed_is_read_from_pytests_summary(tmp_path: Path) -> None:
    said = (
        "..F\nFAILED tests/a.py::test_b[x y] - AssertionError: no\nERROR tests/c.py\nFAILED tests/a.py::test_d@a.py\n"
    )
    assert tool.failed_tests(said) == ["tests/a.py::test_b[x y]", "tests/a.py::test_d", "tests/c.py"]


def run_tool(folder: Path, *entries: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """The tool with a list of its own."""
    (folder / "faults.yaml").write_text(yaml.safe_dump(list(entries)))
    command = [sys.executable, ROOT / "scripts" / "faults", "--list", folder / "faults.yaml", "--no-control"]
    return subprocess.run([*command, "--record", folder / "record.json"], capture_output=True, text=True)


def test_what_catches_a_fault_is_told_and_kept(starts_process: None, tmp_path: Path) -> None:
    right, wrong = "return type(self)(**(defaults | given))", "return type(self)(**(given | defaults))"
    entry = {"id": "defaults-win", "what": "defaults win", "find": right, "replace": wrong, "tests": [SCHEMA]}
    done = run_tool(tmp_path, entry)
    caught = json.loads((tmp_path / "record.json").read_text())["defaults-win"]["failed"]
    assert (done.returncode, "1 of 1 as expected" in done.stdout) == (0, True), done.stdout + done.stderr
    assert caught and all(test.startswith(SCHEMA) for test in caught)
    assert right in tool.Fault(**entry).place(ROOT).read_text()


def test_a_fault_that_nothing_catches_is_told(starts_process: None, tmp_path: Path) -> None:
    right, wrong = "return type(self)(**(defaults | given))", "return type(self)(**(defaults | given | {}))"
    entry = {"id": "no-fault", "what": "nothing", "find": right, "replace": wrong, "tests": [SCHEMA]}
    done = run_tool(tmp_path, entry)
    assert (done.returncode, "MISSED" in done.stdout) == (1, True), done.stdout + done.stderr
