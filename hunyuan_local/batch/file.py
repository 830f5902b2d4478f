"""Reads a batch file: the requested videos, and the problems of each bad line.

The whole file is checked before any work starts. How and where the videos are generated is decided elsewhere; a seed
that is not given stays None.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FieldProblem, InvalidRequestError
from ..image_source import read_image
from ..images import InputImage
from ..schema import MAX_SEED, GenerationRequest, parse_size
from .formats import Format, Record, find_comments, lines_of, read_csv, read_json_lines, read_text, without_comments
from .recognition import Recognised, recognise, refuse_other_types, refuse_suffix

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}
_MARK = re.compile("(?<![^\r\n])\ufeff")  # byte order marks, also in the middle of concatenated files
_SHOWN = 10  # line numbers of comments listed in a note


class _LineError(Exception):
    """A line is not a valid request; the message lists all its problems."""


@dataclass(frozen=True)
class BatchItem:
    """One requested video.

    Attributes:
        line: line number in the file, from 1; for CSV, the line where the record begins.
        request: the defaults, updated with the line's fields; fields that neither gives are None, including the seed.
    """

    line: int
    request: GenerationRequest


@dataclass(frozen=True)
class BadLine:
    """A line that is not a valid request, and why; the text is safe to print on a terminal."""

    line: int
    problem: str


@dataclass(frozen=True)
class BatchFile:
    """The contents of a batch file, in order; the same video may occur more than once.

    ``notes`` report skipped comments, and a format other than the file name suggests.
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
        path: the file, or ``-`` for standard input; UTF-8, with or without a byte order mark. A line's ``image`` is a
            URL, or a file relative to the folder of this one.
        format: the file's format. The default follows the suffix (.jsonl and .ndjson, .csv and .tsv); any other file
            is text with one prompt per line, unless its content is recognised as JSON lines or CSV. In text, lines
            that begin with ``#`` are comments; write ``\\#`` for a prompt that begins with ``#``.
        defaults: fields, or ``size``, for the lines that do not set them; None means not given.
        seeds: generate each line without a seed once per seed in this list.
        num_videos_per_prompt: number of videos per line. A line with seed s gets the seeds s, s+1, ...; a line
            without a seed yields that many items without a seed.

    Raises:
        ConfigError: the file is unreadable, not in the expected format or empty; or ``seeds`` conflicts with another
            option.
        InvalidRequestError: a default or one of ``seeds`` is invalid.
    """
    defaults = _check_options(defaults, seeds, num_videos_per_prompt)
    name = "the batch on standard input" if path == "-" else f"batch file {path}"
    text, found, notes = _prepared(_read(path, name), format, path, name)
    items: list[BatchItem] = []
    bad_lines: list[BadLine] = []
    # Lines may share an image, which is read or fetched once.
    open_image = cache(partial(read_image, folder=None if path == "-" else Path(path).parent))
    for record in _records(text, found, name):
        try:
            requests = _requests(record, defaults, seeds, num_videos_per_prompt, open_image)
        except _LineError as error:
            bad_lines.append(BadLine(record.line, _printable(str(error))))
            continue
        items += [BatchItem(record.line, request) for request in requests]
    if not items and not bad_lines:
        but = f"; {notes[0].removeprefix(f'{name}: ')}" if notes else ""
        raise ConfigError(f"{name}: has no prompts; write at least one{but}")
    return BatchFile(tuple(items), tuple(bad_lines), tuple(notes))


def _check_options(defaults: Mapping[str, Any], seeds: Sequence[int], num_videos_per_prompt: int) -> dict[str, Any]:
    """The defaults without None values, with ``size`` split into width and height."""
    if num_videos_per_prompt < 1:
        raise ConfigError(f"num_videos_per_prompt={num_videos_per_prompt}: must be 1 or more")
    if seeds and num_videos_per_prompt > 1:
        raise ConfigError(
            f"{len(seeds)} seeds and num_videos_per_prompt={num_videos_per_prompt} both set the number of videos per "
            "line; give one or the other"
        )
    if "prompt" in defaults:
        raise ConfigError("prompt: cannot have a default; each line gives its own")
    defaults, problems = _split_size({name: value for name, value in defaults.items() if value is not None})
    if problems:
        raise InvalidRequestError(problems)
    GenerationRequest(prompt="any", **defaults)
    if seeds and "seed" in defaults:
        raise ConfigError(f"seed={defaults['seed']} and a list of seeds conflict; give one or the other")
    for seed in seeds:
        GenerationRequest(prompt="any", seed=seed)
        if seeds.count(seed) > 1:
            raise ConfigError(f"seeds: {seed} appears more than once; give each seed once")
    return defaults


def _read(path: str, name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{name}: file not found; check the path, or give - for standard input") from None
    except IsADirectoryError:
        raise ConfigError(f"{name}: is a folder; give a file in it") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror or error}; check its permissions") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{name}: is UTF-16; save it as UTF-8, for example with iconv -f UTF-16 -t UTF-8")
    refuse_other_types(data, name)
    if (place := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, place) + 1
        kind = "so it is not a text file, or it is UTF-16 or UTF-32"
        raise ConfigError(f"{name}: line {line} contains a NUL byte, {kind}; save it as UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{name}: line {line} is not UTF-8: invalid byte 0x{data[error.start]:02x}; save the file as UTF-8, "
            "for example with iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    text = _MARK.sub("", text)
    if not text.strip():
        raise ConfigError(f"{name}: is empty; write at least one prompt")
    return text


def _prepared(text: str, format: Format | None, path: str, name: str) -> tuple[str, Recognised, list[str]]:
    """The text without comments, its format, and notes for the user."""
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
    if found.format == "csv":  # below the header, a "#" may be inside a quoted cell
        header = next(line for line, _ in lines_of(plain))
        comments = [line for line in comments if line < header]
        plain = without_comments(text, len(comments))
    notes = [found.note] if found.note else []
    return plain, found, [*notes, *([_comments_note(comments, name)] if comments else [])]


def _comments_note(lines: list[int], name: str) -> str:
    shown = ", ".join(map(str, lines[:_SHOWN])) + (f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else "")
    which = "skipped 1 comment: line" if len(lines) == 1 else f"skipped {len(lines)} comments: lines"
    return f"{name}: {which} {shown}; to begin a prompt with #, write \\#"


def _records(text: str, found: Recognised, name: str) -> Iterator[Record]:
    if found.format == "jsonl":
        return read_json_lines(text)
    if found.format == "csv":
        return read_csv(text, name, found.delimiter)
    return read_text(text)


def _requests(
    record: Record,
    defaults: dict[str, Any],
    seeds: Sequence[int],
    num_videos_per_prompt: int,
    open_image: Callable[[str], InputImage],
) -> list[GenerationRequest]:
    """The requests of one record, one per video; raises _LineError with all its problems."""
    if record.fields is None:
        raise _LineError("; ".join(record.problems))
    fields, size_problems = _split_size(record.fields)
    problems = [*record.problems, *map(str, size_problems)]
    try:
        if isinstance(fields.get("image"), str):
            fields = fields | {"image": open_image(fields["image"])}
        request = GenerationRequest(**(defaults | fields))
    except InvalidRequestError as error:
        raise _LineError("; ".join([*problems, *map(str, error.problems)])) from error
    if problems:
        raise _LineError("; ".join(problems))
    if request.seed is None:
        return [request.replace(seed=seed) for seed in seeds] or [request] * num_videos_per_prompt
    last = request.seed + num_videos_per_prompt - 1
    if last > MAX_SEED:
        rule = f"{num_videos_per_prompt} videos need seeds up to {last}; the maximum is 2^64-1, so start lower"
        raise _LineError(str(FieldProblem("seed", request.seed, rule)))
    return [request, *(request.replace(seed=seed) for seed in range(request.seed + 1, last + 1))]


def _split_size(fields: dict[str, Any]) -> tuple[dict[str, Any], list[FieldProblem]]:
    """The fields with width and height instead of ``size``, and the problems found."""
    if "size" not in fields:
        return fields, []
    others = {name: value for name, value in fields.items() if name != "size"}
    if others.keys() & {"width", "height"}:
        rule = "conflicts with width and height; give one or the other"
        return others, [FieldProblem("size", fields["size"], rule)]
    try:
        width, height = parse_size(fields["size"])
    except InvalidRequestError as error:
        return others, error.problems
    return others | {"width": width, "height": height}, []


def _printable(text: str) -> str:
    """Escape control and other unprintable characters: messages quote keys from the file."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
