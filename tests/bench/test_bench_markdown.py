"""Untrusted text in Markdown, and tables that are readable unrendered."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from rendered import Page

from hunyuan_local.bench.report.markdown import code, prose, table


def page_of(text: str) -> Page:
    return Page(f"## x\n\n{text}\n")


@settings(deadline=None)
@given(st.text(st.sampled_from("|`\\ $<>&*_[]!~#a\n\t"), max_size=12))
def test_any_text_survives_a_table(text: str) -> None:
    page = page_of(table(["a", "b", "c"], [["1", code(text), "2"], ["3", prose(text), "4"]]))
    plain = " ".join(text.split())
    assert [row[1] for row in page.tables["x"][0][1:]] == [plain, plain]


def test_columns_of_a_table_stand_below_each_other() -> None:
    lines = table(["Name", "s", "Where"], [["狐", "1.5", "here"], ["fox", "12.25", "there and back"]]).splitlines()
    assert lines == [
        "| Name |     s | Where |",
        "| ---- | ----: | --- |",
        "| 狐   |   1.5 | here |",
        "| fox  | 12.25 | there and back |",
    ]
