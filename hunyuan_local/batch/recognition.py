"""Recognises files of another format that were given as plain text, where each line would become a prompt.

Matches only text that is very unlikely to be a prompt; ``--format`` overrides a wrong guess. Independent of the
meaning of the fields.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from typing import NoReturn

from ..errors import ConfigError
from .formats import COLUMNS, Format, lines_of

_AS_TEXT = "save the prompts as plain text in UTF-8, one per line"
_FROM_OFFICE = "export it as CSV in UTF-8, or as plain text"
# File signatures (regular expressions for the first bytes), the type they indicate, and the remedy.
_SIGNATURES: tuple[tuple[str, str, str], ...] = (
    (r".{4}ftyp", "a video (MP4)", _AS_TEXT),
    (r"\x1aE\xdf\xa3", "a video (Matroska or WebM)", _AS_TEXT),
    (r"RIFF.{4}(AVI |WAVE|WEBP)", "a video, an audio file or an image (RIFF)", _AS_TEXT),
    (r"\x89PNG|GIF8[79]a.{0,9}\x00|\xff\xd8\xff", "an image", _AS_TEXT),
    (r"PK\x03\x04", "a ZIP archive, or an office document", _FROM_OFFICE),
    (r"\xd0\xcf\x11\xe0", "an office document in an old format", _FROM_OFFICE),
    (r"\{\\rtf", "a document (RTF)", _FROM_OFFICE),
    (r"%PDF-", "a document (PDF)", _AS_TEXT),
    (r"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd", "a compressed file", "unpack it first"),
    (r"SQLite format 3", "a database (SQLite)", _AS_TEXT),
    (r"(\xef\xbb\xbf)?\s*<(?i:\?xml|!doctype|html|svg)\b", "a page or an image in XML or HTML", _AS_TEXT),
)
_JSON_LINES = 'write one object per line, such as {"prompt": "a cat on a fence"}, and name the file .jsonl'
_OTHERWISE = "--format text reads each line as a prompt"
# Suffixes of formats that are not used for one prompt per line.
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
    """The format to read a text in; ``note`` is set if it differs from what the file name suggests."""

    format: Format
    delimiter: str = ","
    note: str | None = None


def refuse_other_types(data: bytes, name: str) -> None:
    """Refuse images, archives and other file types by their signature.

    Raises:
        ConfigError: names the type and the remedy.
    """
    begin = data[:200].decode("latin-1")
    for pattern, kind, remedy in _SIGNATURES:
        if re.match(pattern, begin, re.DOTALL):
            raise ConfigError(f"{name}: is {kind}, not a text file with prompts; {remedy}")


def refuse_suffix(suffix: str, stem: str, name: str) -> None:
    """Refuse a suffix of another format.

    Raises:
        ConfigError: names the format and the remedy.
    """
    if suffix == ".json":
        raise ConfigError(f"{name}: is JSON; write one object per line and name it {stem}.jsonl")
    if suffix in _REFUSED:
        raise ConfigError(f"{name}: is {_REFUSED[suffix]}, according to its suffix; {_JSON_LINES}; {_OTHERWISE}")


def recognise(text: str, name: str) -> Recognised:
    """Guess the format of a text with an unknown suffix, in which comments are blank lines.

    Raises:
        ConfigError: the text is in an unsupported format, or in two formats; names the remedy.
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
        _refuse(name, "is JSON, but not one object per line", _JSON_LINES)
    objects = [number for number, line in lines if _OBJECT.match(line)]
    if not objects:
        return None
    if len(objects) < len(lines):
        other = next(number for number, _ in lines if number not in objects)
        _refuse(name, f"line {objects[0]} is JSON and line {other} is not", f"--format jsonl reads JSON; {_JSON_LINES}")
    return Recognised("jsonl", note=f"{name}: read as JSON lines; {_OTHERWISE}")


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _csv(text: str, lines: list[tuple[int, str]], name: str) -> Recognised | None:
    number, first = lines[0]
    if len(lines) > 1 and first.strip().strip('"').lower() == "prompt":
        remedy = "remove that line, or use --format csv to read it as a header, or --format text to read it as a prompt"
        raise ConfigError(f"{name}: line {number} is 'prompt', like the header of a table; {remedy}")
    for delimiter in ",\t;|":
        cells = [cell.strip() for cell in _cells(first, delimiter)]
        if len(cells) < 2 or "prompt" not in [cell.lower() for cell in cells]:
            continue
        is_known = all(cell in COLUMNS for cell in cells)
        if is_known or (all(map(_COLUMN.fullmatch, cells)) and _has_columns(text, delimiter, len(cells))):
            # For other delimiters, the CSV reader raises an error that names the remedy.
            delimiter = delimiter if delimiter in ",\t" else ","
            kind = "tab-separated values" if delimiter == "\t" else "CSV"
            return Recognised("csv", delimiter, f"{name}: read as {kind}; {_OTHERWISE}")
    return None


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _has_columns(text: str, delimiter: str, count: int) -> bool:
    """Whether each row has ``count`` cells, and there is at least one row below the header."""
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(map(str.strip, row))]
    except csv.Error:
        return False
    return len(rows) > 1 and all(len(row) == count for row in rows)


def _refuse_keys(lines: list[tuple[int, str]], name: str) -> None:
    """Refuse YAML and TOML."""
    number, first = lines[0]
    found = next((at for at, line in lines if _LIST_ITEM.fullmatch(line)), None)
    if found is None and (first.strip() == "---" or _KEY.fullmatch(first.strip())):
        found = number
    if found is not None:
        _refuse(name, f"line {found} is YAML or TOML, not a prompt", _JSON_LINES)


def _refuse(name: str, what: str, remedy: str) -> NoReturn:
    raise ConfigError(f"{name}: {what}; {remedy}; {_OTHERWISE}")
