"""Text files with one prompt per line: comments, files in another format, and prompts that look like other formats."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest
from standin import sample_video

from hunyuan_local.batch.file import BatchFile, read_batch
from hunyuan_local.errors import ConfigError


def batch_of(folder: Path, content: str | bytes, name: str = "a.txt", **options: object) -> BatchFile:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_batch(str(path), **options)


def prompts(batch: BatchFile) -> list[str]:
    assert batch.bad_lines == ()
    return [item.request.prompt for item in batch.items]


def notes(batch: BatchFile) -> list[str]:
    return [note.partition("a.txt: ")[2] for note in batch.notes]


# Comments


def test_comments_are_skipped_and_said(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, "# my night list\na red circle\n\n  # second\na blue square\n")
    assert [(item.line, item.request.prompt) for item in batch.items] == [(2, "a red circle"), (5, "a blue square")]
    assert notes(batch) == ["skipped 2 comments: lines 1, 4; to begin a prompt with #, write \\#"]


def test_one_comment_is_one(tmp_path: Path) -> None:
    assert notes(batch_of(tmp_path, "#\na"))[0].startswith("skipped 1 comment: line 1;")


def test_of_many_comments_the_first_lines_are_reported(tmp_path: Path) -> None:
    said = notes(batch_of(tmp_path, "#\n" * 12 + "a"))
    assert said[0].startswith("skipped 12 comments: lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more;")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_comments_end_with_their_line(tmp_path: Path, line_end: str) -> None:
    assert prompts(batch_of(tmp_path, line_end.join(["\ufeff# x", "a", "# y", "b"]))) == ["a", "b"]


@pytest.mark.parametrize("options", [{}, {"format": "text"}])
def test_a_prompt_may_begin_with_a_sharp(tmp_path: Path, options: dict[str, object]) -> None:
    batch = batch_of(tmp_path, "\\#1 fan\n \\# b\n\\\\c\na # b\n\\a", **options)
    assert (prompts(batch), batch.notes) == (["#1 fan", "# b", "\\\\c", "a # b", "\\a"], ())


def test_comments_alone_ask_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no prompts.*skipped 2 comments: lines 1, 2; to begin a prompt"):
        batch_of(tmp_path, "# a\n# b\n")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_other_formats_have_no_comments(tmp_path: Path, name: str) -> None:
    content = {"a.jsonl": '{"prompt": "# a"}', "a.csv": "prompt\n# a"}[name]
    assert prompts(batch_of(tmp_path, content, name)) == ["# a"]


# Recognised formats


@pytest.mark.parametrize("name", ["a.txt", "a", "a.prompts", "a.md"])
def test_json_lines_are_read_as_such(tmp_path: Path, name: str) -> None:
    batch = batch_of(tmp_path, '# mine\n{"prompt": "a red circle", "seed": 3}\n\n { "seed":4,"prompt":"b"}\n', name)
    assert [(item.line, item.request.prompt, item.request.seed) for item in batch.items] == [
        (2, "a red circle", 3), (4, "b", 4),
    ]  # fmt: skip
    assert "read as JSON lines; --format text reads each line as a prompt" in batch.notes[0]
    assert "skipped 1 comment: line 1" in batch.notes[1]


def test_json_lines_with_faults_are_still_json_lines(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, '{"prompt": "a"},\n{"prompt": "b"}\n{\'prompt\': "c"}\n{"prompt": "d"')
    assert [bad.line for bad in batch.bad_lines] == [1, 3, 4]


@pytest.mark.parametrize(
    "content",
    [
        "prompt,seed\na red circle,7\n",
        "# mine\nprompt,seed\na red circle,7\n",
        '"seed","prompt"\r\n7,"a red circle"\r\n',
        "prompt\tseed\na red circle\t7\n",
        "prompt,negative_prompt,seed\n,,\na red circle,,7",
    ],
)
def test_csv_is_read_as_such(tmp_path: Path, content: str) -> None:
    batch = batch_of(tmp_path, content)
    assert [(item.request.prompt, item.request.seed) for item in batch.items] == [("a red circle", 7)]
    assert "read as " in notes(batch)[0] and "; --format text reads each line as a prompt" in notes(batch)[0]


def test_a_cell_is_no_comment(tmp_path: Path) -> None:
    assert prompts(batch_of(tmp_path, '# mine\nprompt,seed\n"a\n# b",7\n#c,8\n')) == ["a\n# b", "#c"]


def test_bad_rows_of_csv_are_listed(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, "prompt,seed\na,7\nb\n")
    assert [bad.line for bad in batch.bad_lines] == [3]


@pytest.mark.parametrize("content", ['{"prompt": "a", "seed": 7}', "prompt,seed\na,7", "seed\tprompt\n7\ta"])
def test_standard_input_is_recognised_too(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    batch = read_batch("-")
    assert [(item.request.prompt, item.request.seed) for item in batch.items] == [("a", 7)]
    assert batch.notes[0].startswith("the batch on standard input: read as ")


def test_format_text_makes_prompts_of_all(tmp_path: Path) -> None:
    lines = ['{"prompt": "a"}', "prompt,seed", "- prompt: a", "[1]"]
    assert prompts(batch_of(tmp_path, "\n".join(lines), format="text")) == lines


# Refused files, with the remedy


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('["a red circle", "a blue square"]', "is JSON, but not one object per line; write one object per line"),
        ('[{"prompt": "a"}, {"prompt": "b"}]', "is JSON, but not one object per line"),
        ('[\n  {"prompt": "a"},\n  {"prompt": "b"}\n]', "is JSON, but not one object per line"),
        ('{\n  "prompt": "a",\n  "seed": 3\n}', "is JSON, but not one object per line"),
        ("[{\n'prompt': 'a'\n}]", "is JSON, but not one object per line"),
        ('{"prompt": "a"}\na blue square', "line 1 is JSON and line 2 is not; --format jsonl reads JSON"),
        ('a blue square\n{"prompt": "a"}', "line 2 is JSON and line 1 is not"),
        ("prompt;seed\na;4\n", "separate the cells by commas"),
        ("prompt|seed\na|4\n", "separate the cells by commas"),
        ("Prompt,Seed\na,4\n", "unknown column 'Prompt'; did you mean prompt"),
        ("id,prompt,steps\n1,a,4\n", "unknown column 'id'"),
        ("prompt\na red circle\n", "line 1 is 'prompt', like the header of a table; remove that line"),
        ("- prompt: a red circle\n  seed: 3\n", "line 1 is YAML or TOML, not a prompt; write one object per line"),
        ("videos:\n  - prompt: a red circle\n", "line 2 is YAML or TOML"),
        ("# mine\nprompt: a red circle\nseed: 3\n", "line 2 is YAML or TOML"),
        ("prompts:\n- a red circle\n", "line 1 is YAML or TOML"),
        ("---\na red circle\n", "line 1 is YAML or TOML"),
        ('prompt = "a red circle"\n', "line 1 is YAML or TOML"),
        ("seed: 3\nprompt: a\n", "line 1 is YAML or TOML"),
        ("<?xml version='1.0'?>\n<a/>", "is a page or an image in XML or HTML"),
        ("\ufeff<!doctype html>\n<p>", "is a page or an image in XML or HTML"),
        ("{\\rtf1\\ansi a red circle}", "is a document (RTF)"),
        ("%PDF-1.7\nx", "is a document (PDF)"),
    ],
)
def test_another_format_is_refused_with_what_to_do(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        batch_of(tmp_path, content)
    assert words in str(caught.value) and "a.txt: " in str(caught.value)


def zip_file() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("xl/workbook.xml", "")
    return held.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (sample_video(64, 48, 2), "is a video (MP4), not a text file with prompts; save the prompts as plain text"),
        (b"\x89PNG\r\n\x1a\n", "is an image"),
        (b"\xff\xd8\xff\xe0", "is an image"),
        (zip_file(), "an office document, not a text file with prompts; export it as CSV"),
        (
            gzip.compress(b"a red circle", mtime=0),
            "is a compressed file, not a text file with prompts; unpack it first",
        ),
        ("a red circle".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (
            "a red circle".encode("utf-16-le"),
            "contains a NUL byte, so it is not a text file, or it is UTF-16 or UTF-32",
        ),
    ],
    ids=["mp4", "png", "jpeg", "office document", "gzip", "utf-16", "utf-16 without a mark"],
)
@pytest.mark.parametrize("options", [{}, {"format": "text"}])
def test_another_type_is_refused_by_its_name(
    tmp_path: Path, data: bytes, words: str, options: dict[str, object]
) -> None:
    with pytest.raises(ConfigError) as caught:
        batch_of(tmp_path, data, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "kind"), [("a.yaml", "YAML"), ("a.YML", "YAML"), ("a.toml", "TOML")])
def test_a_name_of_another_format_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"is {kind}, according to its suffix; write one object per line"):
        batch_of(tmp_path, "a red circle", name)
    assert prompts(batch_of(tmp_path, "a red circle", name, format="text")) == ["a red circle"]


# Lines that look like something else but are prompts


@pytest.mark.parametrize(
    "lines",
    [
        ["{a cat}"],
        ["{red|blue} car, {day|night}", "{}cat"],
        ["one, two, three", "four, five, six"],
        ["prompt, detailed, cinematic", "a cat"],
        ["a prompt, seed of a plant"],
        ["prompt engineering, a robot at a desk", "a cat, a dog"],
        ["[cinematic] a cat", "(a cat:1.2), [dog]"],
        ["[[[", "a"],
        ['"a red circle"', '"a blue square"'],
        ['a sign that says {"text": "OPEN"}'],
        ["a cat; a dog", "a | b"],
        ["seed: a time lapse of a sprouting seed"],
        ["Prompt: a red circle"],
        ["size: huge, a giant walks"],
        ["- a red circle", "- a blue square"],
        ["1. a red circle"],
        ["123", "true", "null"],
        ["PK, the famous footballer", "GIF89a style animation", "RIFF of a guitar", "BZh"],
        ["a <html> page on a screen"],
        ["a\tcat\ttabs"],
        ["prompt"],
        ["https://example.com/# a"],
        ["\u201ea cat\u201c", "\u732b", "\U0001f408"],
    ],
)
def test_a_prompt_is_a_prompt(tmp_path: Path, lines: list[str]) -> None:
    batch = batch_of(tmp_path, "\n".join(lines) + "\n")
    assert (prompts(batch), batch.notes) == (lines, ())


def test_byte_order_marks_of_joined_files_are_no_part_of_prompts(tmp_path: Path) -> None:
    assert prompts(batch_of(tmp_path, "\ufeffa\n\ufeffb\n")) == ["a", "b"]
    joined = "".join(f"\ufeff{json.dumps({'prompt': text})}\n" for text in "ab")
    assert prompts(batch_of(tmp_path, joined, "a.jsonl")) == ["a", "b"]
