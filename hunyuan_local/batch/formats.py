"""Parsers for the three batch formats: JSON lines, CSV and plain text.

Each parser yields one record per video, with the line number where it begins. Reports syntax errors and cells that
are not numbers; the allowed values are checked elsewhere.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from ..errors import ConfigError, FieldProblem
from ..schema import GenerationRequest

Format = Literal["jsonl", "csv", "text"]
COLUMNS = (*GenerationRequest.model_fields, "size")
MAX_DIGITS = 100  # of an integer; Python stops at 4300 digits with a less helpful error
_COMMENT = re.compile(r"(?<![^\r\n])[^\S\r\n]*#[^\r\n]*")
_WHOLE_NUMBER = re.compile(rf"[+-]?[0-9]{{1,{MAX_DIGITS}}}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Record:
    """The contents of one line, or of the lines of one CSV record.

    Attributes:
        line: line number where it begins, from 1.
        fields: the given values; None if the record cannot be parsed at all.
        problems: messages about what is wrong with it.
    """

    line: int
    fields: dict[str, Any] | None
    problems: tuple[str, ...] = ()


def find_comments(text: str) -> list[int]:
    """Numbers of the lines that begin with ``#``."""
    return [line for line, content in lines_of(text) if content.lstrip().startswith("#")]


def without_comments(text: str, count: int) -> str:
    """Replace the first ``count`` comments by blank lines, which keeps the line numbers."""
    return _COMMENT.sub("", text, count=count) if count else text


def read_text(text: str) -> Iterator[Record]:
    """One prompt per line, stripped, without the ``\\`` of an escaped ``#``; blank lines are skipped."""
    for line, content in lines_of(text):
        prompt = content.strip()
        yield Record(line, {"prompt": prompt[1:] if prompt.startswith("\\#") else prompt})


def read_json_lines(text: str) -> Iterator[Record]:
    """One JSON object per line; blank lines are skipped, and a null counts as a missing key."""
    decoder = json.JSONDecoder(
        object_pairs_hook=_to_dict, parse_constant=_refuse_constant, parse_float=_to_float, parse_int=_to_int
    )
    for line, content in lines_of(text):
        try:
            value = decoder.decode(content)
        except json.JSONDecodeError as error:
            yield _unreadable(line, f"is not JSON: {error.msg[:1].lower()}{error.msg[1:]} at column {error.colno}")
        except RecursionError:
            yield _unreadable(line, "is nested too deeply; a request contains only strings and numbers")
        except ValueError as error:
            yield _unreadable(line, str(error))
        else:
            if isinstance(value, dict):
                yield Record(line, {name: entry for name, entry in value.items() if entry is not None})
            else:
                kinds: dict[type, str] = {list: "a list", str: "a string"}
                kind = kinds.get(type(value), json.dumps(value)[:40])
                yield _unreadable(
                    line, f'is {kind}; each line must be an object such as {{"prompt": "a cat on a fence"}}'
                )


def read_csv(text: str, name: str, delimiter: str) -> Iterator[Record]:
    """One video per record, below a header with the column names; blank records are skipped.

    Raises:
        ConfigError: a column is unknown, duplicate or unnamed, or there is no prompt column; the message refers to
            the file as ``name``.
    """
    rows = _csv_rows(text, delimiter)
    header: list[str] | None = None
    for line, row in rows:
        if header is None:
            if isinstance(row, str):
                raise ConfigError(f"{name}: line {line}, which must contain the column names, {row}")
            header = _check_header([cell.strip() for cell in row], name, line, delimiter)
        elif isinstance(row, str):
            yield _unreadable(line, row)
        elif len(row) != len(header):
            many = "more" if len(row) > len(header) else "fewer"
            yield _unreadable(
                line,
                f"has {len(row)} cells, {many} than the {len(header)} columns; "
                "put double quotes around a cell that contains the delimiter",
            )
        else:
            yield _convert(line, {column: cell for column, cell in zip(header, row, strict=True) if cell.strip()})


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """The non-blank lines with their numbers; unlike str.splitlines, splits only at \\n, \\r\\n and \\r."""
    for line, content in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if content.strip():
            yield line, content


def _csv_rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """For each non-blank record, the line where it begins, and its cells or an error message."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _csv_problem(str(error), delimiter)
        else:
            if any(cell.strip() for cell in row):
                yield line, row


def _csv_problem(message: str, delimiter: str) -> str:
    if "unexpected end" in message:
        return "opens a double quote that is never closed"
    if "expected after" in message:
        between = "a tab" if delimiter == "\t" else repr(delimiter)
        return f"has text after a closing double quote; double a quote inside a cell, and put {between} between cells"
    if "limit" in message:
        return f"has a cell of more than {csv.field_size_limit()} characters"
    return f"is not CSV: {message}"


def _check_header(header: list[str], name: str, line: int, delimiter: str) -> list[str]:
    for place, column in enumerate(header, 1):
        if not column:
            raise ConfigError(f"{name}: line {line}: column {place} has no name; name it or remove it")
        if column not in COLUMNS:
            wanted = column.lower().replace(" ", "_")
            near = [name for name in COLUMNS if wanted in name] or difflib.get_close_matches(wanted, COLUMNS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            if delimiter == "," and re.search("[;\t|]", column):
                hint = "separate the cells by commas, or by tabs in a .tsv file; "
            raise ConfigError(
                f"{name}: line {line}: unknown column {column[:60]!r}; {hint}the first line must name the columns, "
                f"any of {', '.join(COLUMNS)}"
            )
        if column in header[: place - 1]:
            raise ConfigError(f"{name}: line {line}: duplicate column {column}; remove one")
    if "prompt" not in header:
        raise ConfigError(f"{name}: line {line}: no prompt column; add a column named prompt")
    return header


def _convert(line: int, cells: dict[str, str]) -> Record:
    """Convert the cells of a CSV record to the types of their fields; report and skip those that do not convert."""
    fields: dict[str, str | int | float] = {}
    problems: list[str] = []
    for column, cell in cells.items():
        kind, text = _TYPES.get(column, str), cell.strip()
        if kind is str:
            fields[column] = cell
        elif kind is int and _WHOLE_NUMBER.fullmatch(text):
            fields[column] = int(text)
        elif kind is float and _NUMBER.fullmatch(text):
            fields[column] = float(text)
        else:
            rule = "an integer, such as 24" if kind is int else "a number with a decimal point, such as 7.0"
            problems.append(str(FieldProblem(column, cell, f"must be {rule}")))
    return Record(line, fields, tuple(problems))


def _value_type(annotation: Any) -> type:
    """``int`` for ``int | None`` and so on; ``str`` for literals."""
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation if isinstance(annotation, type) else str


_TYPES = {name: _value_type(field.annotation) for name, field in GenerationRequest.model_fields.items()}


def _unreadable(line: int, problem: str) -> Record:
    return Record(line, None, (problem,))


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"gives {twice!r} more than once; give it once")
    return fields


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"contains {constant}, which JSON does not allow")


def _to_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"contains an integer of {len(text)} digits, {text[:20]}..., which is too large")
    return int(text)


def _to_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"contains the number {text[:20]}, which is too large")
    return number
