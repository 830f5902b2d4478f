"""A report as its reader sees it, parsed by an independent Markdown parser with GitHub's tables."""

from __future__ import annotations

from markdown_it import MarkdownIt


class Page:
    """A report as a reader of the rendered page sees it: texts of sections, and tables by section."""

    def __init__(self, source: str):
        self.source = source
        self.headings: list[str] = []
        self.text: dict[str, str] = {}
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.tags: set[str] = set()
        section, row = "", None
        for token in MarkdownIt("commonmark").enable("table").parse(source):
            self.tags |= {token.type, *(child.type for child in token.children or [])}
            if token.type == "heading_open":
                section = "" if token.tag == "h2" else section
            elif token.type == "table_open":
                self.tables.setdefault(section, []).append([])
            elif token.type == "tr_open":
                row = []
                self.tables[section][-1].append(row)
            elif token.type == "tr_close":
                row = None
            elif token.type == "inline":
                text = "".join(child.content or " " for child in token.children)
                if not section:
                    section = text
                    self.headings.append(text)
                if row is not None:
                    row.append(text)
                self.text[section] = self.text.get(section, "") + text + "\n"
