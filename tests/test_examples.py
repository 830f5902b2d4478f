"""The published example prompts for the built-in model contain everything that its training prompts contain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = (
    "README.md",
    "benchmarks/*.md",
    "benchmarks/**/*.py",
    "docs/**/*.md",
    "configs/**/*.yaml",
    "hunyuan_local/**/*.py",
)
SCRIPTS = [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
FILES = sorted({*SCRIPTS, *(path for place in PLACES for path in ROOT.glob(place))})
# A colour and a shape in quotation marks.
SHAPE = r"\b(?:red|green|blue|yellow|purple|white) (?:circle|square|triangle)\b"
QUOTED = re.compile(rf"[\"'](?P<text>[^\"'`\n]*{SHAPE}[^\"'`\n]*)")
WHOLE = re.compile(r"(left|right|up|down)\b.*\b(black|grey|gray|navy) background")


def examples(path: Path) -> list[str]:
    return [found["text"] for found in QUOTED.finditer(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", [path for path in FILES if examples(path)], ids=lambda path: path.name)
def test_a_prompt_of_a_moving_shape_names_its_direction_and_background(path: Path) -> None:
    assert [text for text in examples(path) if not WHOLE.search(text)] == []


def test_there_are_such_examples() -> None:
    assert sum(len(examples(path)) for path in FILES) >= 20
