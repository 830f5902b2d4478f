"""Escapes untrusted text for Markdown as GitHub renders it, and formats tables that are readable unrendered.

A prompt or an error message may contain anything; none of it may become markup or break a table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len

# Bidirectional control characters, which can make one text look like another.
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_MARKUP = re.compile(r"[&<>\\`*_\[\]|~$#!@]")


def code(text: str, limit: int | None = None) -> str:
    """Put ``text`` in code spans, where nothing is markup; safe in a paragraph, a list and a table.

    Whitespace becomes single spaces, other control characters become escapes, and text longer than ``limit``
    characters ends in an ellipsis. A pipe becomes an entity between two spans, because parsers differ on how a
    backslash before an escaped pipe behaves.
    """
    text = one_line(text)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    return "&#124;".join(map(_span, text.split("|")))


def prose(text: str) -> str:
    """Escape a sentence for a table cell: entities replace all characters that could be markup."""
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", one_line(text))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Format a table from cells that are already Markdown; every column but the last is padded.

    Args:
        left: number of columns to align left; the last column is also left-aligned, the numbers between right-aligned.
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
    """Collapse whitespace to single spaces, and escape characters that move the cursor or change text direction."""
    return " ".join("".join(map(_visible, text)).split())


def _visible(character: str) -> str:
    if character.isspace():
        return " "
    if character in _BIDI or unicodedata.category(character) in ("Cc", "Cs"):
        return f"\\u{ord(character):04x}"
    return character


def _span(text: str) -> str:
    """One code span; parsers strip one space from each end if both have one (CommonMark 0.31, 6.1)."""
    if not text:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    needs_space = "`" in (text[0], text[-1]) or (text[0] == text[-1] == " " and text.strip())
    space = " " if needs_space else ""
    return f"{fence}{space}{text}{space}{fence}"
