"""What a file is that was given as prompts, one a line: each line of another format would become a video.

Only what hardly can be a prompt is recognised; ``--format`` decides where that is wrong. Knows nothing about what
the fields mean.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from typing import NoReturn

from ..errors import ConfigError
from .formats import COLUMNS, Format, lines_of

_AS_TEXT = "save the prompts as plain text in UTF-8, one a line"
_FROM_OFFICE = "save it there as CSV in UTF-8, or as plain text"
# How files of other types begin, what they are, and what to do.
_SIGNATURES: tuple[tuple[str, str, str], ...] = (
    (r".{4}ftyp", "a video (MP4)", _AS_TEXT),
    (r"\x1aE\xdf\xa3", "a video (Matroska or WebM)", _AS_TEXT),
    (r"RIFF.{4}(AVI |WAVE|WEBP)", "a video, a sound or a picture (RIFF)", _AS_TEXT),
    (r"\x89PNG|GIF8[79]a.{0,9}\x00|\xff\xd8\xff", "a picture", _AS_TEXT),
    (r"PK\x03\x04", "an archive (ZIP), or a spreadsheet or document of an office program", _FROM_OFFICE),
    (r"\xd0\xcf\x11\xe0", "a document of an old office program", _FROM_OFFICE),
    (r"\{\\rtf", "a document (RTF)", _FROM_OFFICE),
    (r"%PDF-", "a document (PDF)", _AS_TEXT),
    (r"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd", "a compressed file", "unpack it first"),
    (r"SQLite format 3", "a database (SQLite)", _AS_TEXT),
    (r"(\xef\xbb\xbf)?\s*<(?i:\?xml|!doctype|html|svg)\b", "a page or a picture in XML or HTML", _AS_TEXT),
)
_JSON_LINES = 'write one object a line, such as {"prompt": "a cat on a fence"}, and name the file .jsonl'
_OTHERWISE = "--format text makes each line a prompt as it stands"
# Suffixes of formats that nobody writes prompts in, one a line.
_REFUSED = {
    ".yaml": "YAML", ".yml": "YAML", ".toml": "TOML", ".ini": "a configuration", ".xml": "XML", ".html": "HTML",
}  # fmt: skip
_OBJECT = re.compile(r"""\s*\{\s*(?:"[^"]*"|'[^']*')\s*:""")
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,40}")
_KEY = re.compile(
    rf"""(?:-\s+)?(?:(?:prompts?|negative_prompt)\s*[:=](?:\s.*)?|(?:{"|".join(COLUMNS)})\s*[:=]\s*["']?[\d.*x]*["']?)"""
)
_LIST_ITEM = re.compile(r"\s*-\s+prompt\s*:(\s.*)?")


@dataclass(frozen=True)
class Recognised:
    """How a text is to be read; ``note`` says so where its name said otherwise."""

    format: Format
    delimiter: str = ","
    note: str | None = None


def refuse_other_types(data: bytes, name: str) -> None:
    """Refuse pictures, archives and the like by what they begin with.

    Raises:
        ConfigError: it is one; says what, and what to do.
    """
    begin = data[:200].decode("latin-1")
    for pattern, kind, remedy in _SIGNATURES:
        if re.match(pattern, begin, re.DOTALL):
            raise ConfigError(f"{name}: is {kind}, not a text of prompts; {remedy}")


def refuse_suffix(suffix: str, stem: str, name: str) -> None:
    """Refuse a name that says another format.

    Raises:
        ConfigError: naming it, and what to write instead.
    """
    if suffix == ".json":
        raise ConfigError(f"{name}: is JSON; write one object a line and name it {stem}.jsonl")
    if suffix in _REFUSED:
        raise ConfigError(f"{name}: is {_REFUSED[suffix]}, by its name; {_JSON_LINES}; {_OTHERWISE}")


def recognise(text: str, name: str) -> Recognised:
    """How to read a text of which nothing is said but that it should be prompts; comments are blank lines in it.

    Raises:
        ConfigError: it is of a format that is not read, or of two; says what to do.
    """
    lines = list(lines_of(text))
    if not lines:
        return Recognised("text")
    found = _json(text, lines, name) or _csv(text, lines, name)
    if found is None:
        _refuse_keys(lines, name)
    return found or Recognised("text")


def _json(text: str, lines: list[tuple[int, str]], name: str) -> Recognised | None:
    first = lines[0][1].strip()
    if first in ("{", "[", "[{") or (first[0] in "[{" and _is_json(text) and not _OBJECT.match(first)):
        _refuse(name, "is JSON that is not one object a line", _JSON_LINES)
    objects = [number for number, line in lines if _OBJECT.match(line)]
    if not objects:
        return None
    if len(objects) < len(lines):
        other = next(number for number, _ in lines if number not in objects)
        _refuse(name, f"line {objects[0]} is JSON and line {other} is not", f"--format jsonl reads JSON; {_JSON_LINES}")
    return Recognised("jsonl", note=f"{name}: holds JSON lines and is read as such; {_OTHERWISE}")


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _csv(text: str, lines: list[tuple[int, str]], name: str) -> Recognised | None:
    number, first = lines[0]
    if len(lines) > 1 and first.strip().strip('"').lower() == "prompt":
        remedy = "take that line out, or --format csv reads the others as a column, --format text makes it a prompt too"
        raise ConfigError(f"{name}: line {number} is 'prompt', as the header of a table; {remedy}")
    for delimiter in ",\t;|":
        cells = [cell.strip() for cell in _cells(first, delimiter)]
        if len(cells) < 2 or "prompt" not in [cell.lower() for cell in cells]:
            continue
        is_known = all(cell in COLUMNS for cell in cells)
        if is_known or (all(map(_COLUMN.fullmatch, cells)) and _has_columns(text, delimiter, len(cells))):
            # Of the others the reader of CSV says what to do.
            delimiter = delimiter if delimiter in ",\t" else ","
            kind = "a table with tabs" if delimiter == "\t" else "CSV"
            return Recognised("csv", delimiter, f"{name}: holds {kind} and is read as such; {_OTHERWISE}")
    return None


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _has_columns(text: str, delimiter: str, count: int) -> bool:
    """Whether each row has so many cells, and there is one below the header."""
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(map(str.strip, row))]
    except csv.Error:
        return False
    return len(rows) > 1 and all(len(row) == count for row in rows)


def _refuse_keys(lines: list[tuple[int, str]], name: str) -> None:
    """Refuse what is written as YAML or TOML."""
    number, first = lines[0]
    found = next((at for at, line in lines if _LIST_ITEM.fullmatch(line)), None)
    if found is None and (first.strip() == "---" or _KEY.fullmatch(first.strip())):
        found = number
    if found is not None:
        _refuse(name, f"line {found} is YAML or TOML, not a prompt", _JSON_LINES)


def _refuse(name: str, what: str, remedy: str) -> NoReturn:
    raise ConfigError(f"{name}: {what}; {remedy}; {_OTHERWISE}")
