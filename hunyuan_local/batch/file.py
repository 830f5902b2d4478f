"""Reads a batch file: which videos it asks for, and what is wrong with each bad line.

The whole file is checked before anything is made. Knows nothing about how or where the videos are made; a seed
that nobody gave stays open.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FieldProblem, InvalidRequestError
from ..schema import MAX_SEED, GenerationRequest, parse_size
from .formats import Format, Record, find_comments, lines_of, read_csv, read_json_lines, read_text, without_comments
from .recognition import Recognised, recognise, refuse_other_types, refuse_suffix

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}
_MARK = re.compile("(?<![^\r\n])\ufeff")  # byte order marks of files that were put behind each other
_SHOWN = 10  # of the numbers of comments


class _LineError(Exception):
    """Nothing can be made of a line; the message says everything that is wrong with it."""


@dataclass(frozen=True)
class BatchItem:
    """One video to be made.

    Attributes:
        line: where the file asks for it, from 1; in CSV the line where the record begins.
        request: the line over the defaults; what nobody gave is None, also the seed.
    """

    line: int
    request: GenerationRequest


@dataclass(frozen=True)
class BadLine:
    """A line that asks for nothing that can be made, and why, in words that may be printed."""

    line: int
    problem: str


@dataclass(frozen=True)
class BatchFile:
    """What a file asks for, in its order; the same video may be asked for more than once.

    ``notes`` say what was left out of it, and how it is read where its name says otherwise.
    """

    items: tuple[BatchItem, ...]
    bad_lines: tuple[BadLine, ...]
    notes: tuple[str, ...] = ()


def read_batch(
    path: str,
    *,
    format: Format | None = None,
    defaults: Mapping[str, Any] = {},
    seeds: Sequence[int] = (),
    num_videos_per_prompt: int = 1,
) -> BatchFile:
    """Read and check a whole batch file.

    Args:
        path: the file, or ``-`` for standard input; UTF-8, with or without a byte order mark.
        format: how it is written; by default, what the suffix says (.jsonl and .ndjson, .csv and .tsv), else text
            with one prompt a line, if it is not recognised as JSON lines or CSV. In text, lines that begin with ``#``
            are comments; a prompt begins with ``\\#`` instead.
        defaults: fields, or ``size``, for the lines that do not give them; None is not given.
        seeds: a line without a seed is made once with each of them.
        num_videos_per_prompt: so many videos a line. One with the seed s gets s, s+1 and so on; one without a
            seed becomes so many items without a seed.

    Raises:
        ConfigError: the file cannot be read, is not of its format or asks for nothing; seeds that contradict
            something else.
        InvalidRequestError: a default or one of ``seeds`` is not allowed.
    """
    defaults = _check_options(defaults, seeds, num_videos_per_prompt)
    name = "the batch on standard input" if path == "-" else f"batch file {path}"
    text, found, notes = _prepared(_read(path, name), format, path, name)
    items: list[BatchItem] = []
    bad_lines: list[BadLine] = []
    for record in _records(text, found, name):
        try:
            requests = _requests(record, defaults, seeds, num_videos_per_prompt)
        except _LineError as error:
            bad_lines.append(BadLine(record.line, _printable(str(error))))
            continue
        items += [BatchItem(record.line, request) for request in requests]
    if not items and not bad_lines:
        but = f"; {notes[0].removeprefix(f'{name}: ')}" if notes else ""
        raise ConfigError(f"{name}: asks for no video; write at least one prompt into it{but}")
    return BatchFile(tuple(items), tuple(bad_lines), tuple(notes))


def _check_options(defaults: Mapping[str, Any], seeds: Sequence[int], num_videos_per_prompt: int) -> dict[str, Any]:
    """The defaults that are given, with a size taken apart."""
    if num_videos_per_prompt < 1:
        raise ConfigError(f"num_videos_per_prompt={num_videos_per_prompt}: must be 1 or more")
    if seeds and num_videos_per_prompt > 1:
        raise ConfigError(
            f"{len(seeds)} seeds and num_videos_per_prompt={num_videos_per_prompt} both say how many videos a line is "
            "made into; give one or the other"
        )
    if "prompt" in defaults:
        raise ConfigError("prompt: is no default; each line gives its own")
    defaults, problems = _split_size({name: value for name, value in defaults.items() if value is not None})
    if problems:
        raise InvalidRequestError(problems)
    GenerationRequest(prompt="any", **defaults)
    if seeds and "seed" in defaults:
        raise ConfigError(f"seed={defaults['seed']} and a list of seeds contradict each other; give one or the other")
    for seed in seeds:
        GenerationRequest(prompt="any", seed=seed)
        if seeds.count(seed) > 1:
            raise ConfigError(f"seeds: {seed} is there more than once; give each seed once")
    return defaults


def _read(path: str, name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{name}: there is no such file; check the path, or give - for standard input") from None
    except IsADirectoryError:
        raise ConfigError(f"{name}: is a folder; name the file in it") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror or error}; check its permissions") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{name}: is UTF-16; save it as UTF-8, for example with iconv -f UTF-16 -t UTF-8")
    refuse_other_types(data, name)
    if (place := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, place) + 1
        kind = "so it is no text file, or one in UTF-16 or UTF-32"
        raise ConfigError(f"{name}: line {line} holds a NUL byte, {kind}; save it as UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{name}: line {line} is not UTF-8: the byte 0x{data[error.start]:02x} cannot be read; save it as UTF-8, "
            "for example with iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    text = _MARK.sub("", text)
    if not text.strip():
        raise ConfigError(f"{name}: is empty; write at least one prompt into it")
    return text


def _prepared(text: str, format: Format | None, path: str, name: str) -> tuple[str, Recognised, list[str]]:
    """The text without its comments, how to read it, and what to say of it."""
    suffix = "" if path == "-" else Path(path).suffix.lower()
    format = format or _SUFFIXES.get(suffix)
    if format in ("jsonl", "csv"):
        return text, Recognised(format, "\t" if suffix == ".tsv" else ","), []
    comments = find_comments(text)
    plain = without_comments(text, len(comments))
    found = Recognised("text")
    if format is None:
        refuse_suffix(suffix, Path(path).stem, name)
        found = recognise(plain, name)
    if found.format == "csv":  # below the header, a line may be in the middle of a cell
        header = next(line for line, _ in lines_of(plain))
        comments = [line for line in comments if line < header]
        plain = without_comments(text, len(comments))
    notes = [found.note] if found.note else []
    return plain, found, [*notes, *([_of_comments(comments, name)] if comments else [])]


def _of_comments(lines: list[int], name: str) -> str:
    shown = ", ".join(map(str, lines[:_SHOWN])) + (f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else "")
    which = "1 comment is skipped: line" if len(lines) == 1 else f"{len(lines)} comments are skipped: lines"
    return f"{name}: {which} {shown}; write a prompt that begins with # as \\#"


def _records(text: str, found: Recognised, name: str) -> Iterator[Record]:
    if found.format == "jsonl":
        return read_json_lines(text)
    if found.format == "csv":
        return read_csv(text, name, found.delimiter)
    return read_text(text)


def _requests(
    record: Record, defaults: dict[str, Any], seeds: Sequence[int], num_videos_per_prompt: int
) -> list[GenerationRequest]:
    """What one record asks for, one request a video; _LineError with everything wrong with it."""
    if record.fields is None:
        raise _LineError("; ".join(record.problems))
    fields, size_problems = _split_size(record.fields)
    problems = [*record.problems, *map(str, size_problems)]
    try:
        request = GenerationRequest(**(defaults | fields))
    except InvalidRequestError as error:
        raise _LineError("; ".join([*problems, *map(str, error.problems)])) from error
    if problems:
        raise _LineError("; ".join(problems))
    if request.seed is None:
        return [request.replace(seed=seed) for seed in seeds] or [request] * num_videos_per_prompt
    last = request.seed + num_videos_per_prompt - 1
    if last > MAX_SEED:
        rule = f"{num_videos_per_prompt} videos need seeds up to {last}; the largest is 2^64-1, so start lower"
        raise _LineError(str(FieldProblem("seed", request.seed, rule)))
    return [request, *(request.replace(seed=seed) for seed in range(request.seed + 1, last + 1))]


def _split_size(fields: dict[str, Any]) -> tuple[dict[str, Any], list[FieldProblem]]:
    """The fields with width and height in the place of ``size``, and what is wrong with that."""
    if "size" not in fields:
        return fields, []
    others = {name: value for name, value in fields.items() if name != "size"}
    if others.keys() & {"width", "height"}:
        rule = "says the same as width and height; give one or the other"
        return others, [FieldProblem("size", fields["size"], rule)]
    try:
        width, height = parse_size(fields["size"])
    except InvalidRequestError as error:
        return others, error.problems
    return others | {"width": width, "height": height}, []


def _printable(text: str) -> str:
    """Without what a terminal would act on or could not show; keys of a line stand in messages as they are."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
