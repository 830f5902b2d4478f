"""Text of others inside Markdown as GitHub renders it, and tables that can be read without rendering.

A prompt or an error may hold anything; nothing in it may become markup, or break a table. Knows nothing about
benches.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len

# Signs that turn the direction of text, and can make one text look like another.
_TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_MARKUP = re.compile(r"[&<>\\`*_\[\]|~$#!@]")


def code(text: str, limit: int | None = None) -> str:
    """``text`` in code spans, in which nothing is markup: right in a paragraph, a list and a table.

    White space becomes single spaces and other control characters are written as escapes; a text that is longer than
    ``limit`` characters is cut and ends in an ellipsis. A pipe stands as an entity between two spans: parsers
    differ on a backslash before one that is escaped.
    """
    text = one_line(text)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    return "&#124;".join(map(_span, text.split("|")))


def prose(text: str) -> str:
    """A sentence inside a cell of a table, with entities for what could be markup."""
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", one_line(text))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are Markdown already; columns are padded, but for the last.

    Args:
        left: so many columns, and the last one, are aligned to the left; figures, between them, to the right.
    """
    last = len(header) - 1
    widths = [max(3, *(cell_len(row[i]) for row in [header, *rows])) for i in range(last)]
    lines = []
    for row in [header, *rows]:
        cells = []
        for i, cell in enumerate(row):
            padding = " " * (widths[i] - cell_len(cell)) if i < last else ""
            cells.append(cell + padding if i < left or i == last else padding + cell)
        lines.append(f"| {' | '.join(cells)} |")
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines.insert(1, f"| {' | '.join([*rule, '---'])} |")
    return "\n".join(lines)


def one_line(text: str) -> str:
    """``text`` with single spaces for white space, and escapes for what would move a cursor or turn the direction."""
    return " ".join("".join(map(_visible, text)).split())


def _visible(character: str) -> str:
    if character.isspace():
        return " "
    if character in _TURNING or unicodedata.category(character) in ("Cc", "Cs"):
        return f"\\u{ord(character):04x}"
    return character


def _span(text: str) -> str:
    """One code span; a parser takes one space off each end where both have one (CommonMark 0.31, 6.1)."""
    if not text:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    needs_space = "`" in (text[0], text[-1]) or (text[0] == text[-1] == " " and text.strip())
    space = " " if needs_space else ""
    return f"{fence}{space}{text}{space}{fence}"
