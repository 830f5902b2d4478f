"""A dry run of ``benchmarks/ten_minutes.py`` on a CPU: every phase in one process, and one from the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "ten_minutes.py"
# What each phase prints about its measurements.
FIGURES = {
    "card": r"product \d+ x \d+ x \d+: [\d.]+ ms, \d+ TFLOP/s",
    "attention": r"\d+ native \(torch chooses\) +[\d.]+ ms \d+ TFLOP/s, off by 0 ",
    "blocks": r"(?s)as it is, dual block: [\d.]+ ms; attention [\d.]+, products [\d.]+, the rest [\d.]+.*"
    r"cheaper norm and rope, single block: [\d.]+ ms; .*equal to the library's: \['[\d.]+', '[\d.]+'\] of elements",
    "compiled": r"(?s)compiling both kinds: [\d.]+ s.*compiled, dynamic, single block: [\d.]+ ms",
    "fit": r"step 0 ran\nstep 1 ran",
    "fit-expandable": r"step 0 ran\nstep 1 ran",
    "video": r"(?s)steps \[[\d.]+, [\d.]+\] tiles Tiling.*steps with skips \[.*decode and write: [\d.]+ s",
    "sparse": r"(?s)flex, 1\.00 of blocks kept: [\d.]+ ms.*flex, 0\.\d+ of blocks kept: [\d.]+ ms",
    # Its matrix products need a GPU: it gets as far as torchao's refusal of this device.
    "fp8": r"Float8 dynamic quantization requires CUDA",
    "group": r"(?s)everything travels \[[\d., ]+\].*what is outside the blocks stays \[[\d., ]+\]",
}
# Prints the output or the error of each phase as JSON. The phases patch functions of the package and settings of torch,
# so they need a separate process.
ALL_PHASES = """
import contextlib, io, json, sys, traceback
sys.argv = ["ten_minutes.py", "all", "--small"]
import ten_minutes
said = {}
for name, *_ in ten_minutes.PHASES:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            ten_minutes.run_phase(name)
        except Exception:
            traceback.print_exc(file=printed)
    said[name] = printed.getvalue()
print(json.dumps(said))
"""

pytestmark = pytest.mark.usefixtures("starts_process")


def run(*command: str, out: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OUT": str(out), "REPO": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *command], env=env, cwd=SCRIPT.parent, capture_output=True, text=True)


def test_every_phase_prints_its_figures(with_extras: None, tmp_path: Path) -> None:
    done = run("-c", ALL_PHASES, out=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said.keys() == FIGURES.keys()
    assert {name: text for name, text in said.items() if not re.search(FIGURES[name], text)} == {}


def test_the_command_line_writes_and_prints_a_table_of_the_phases(tmp_path: Path) -> None:
    done = run(str(SCRIPT), "all", "--small", "card", out=tmp_path / "out")
    assert done.returncode == 0, done.stderr[-4000:]
    table = (tmp_path / "out" / "table.txt").read_text()
    assert done.stdout == table
    assert re.match(r"card +\d+ s\n", table)
    assert re.search(FIGURES["card"], table) and (tmp_path / "out" / "card.log").is_file()
