"""Reading a batch file: three formats, bad lines by number, seeds, copies and duplicates."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hunyuan_local.batch.file import BadLine, BatchFile, read_batch
from hunyuan_local.batch.formats import read_csv, read_json_lines
from hunyuan_local.errors import ConfigError, InvalidRequestError
from hunyuan_local.schema import MAX_SEED

Write = Callable[[str, str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file with this name and content; returns its path."""

    def make(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return make


def json_lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def prompts(batch: BatchFile) -> list[str]:
    return [item.request.prompt for item in batch.items]


def seeds(batch: BatchFile) -> list[int | None]:
    return [item.request.seed for item in batch.items]


# ---- the formats -----------------------------------------------------------------------------------------------------


def test_a_json_line_gives_any_field(write: Write) -> None:
    fields = {
        "prompt": " a red circle\u2028", "negative_prompt": "blur", "width": 144, "height": 80, "num_frames": 17,
        "num_inference_steps": 4, "seed": MAX_SEED, "guidance_scale": 7, "true_cfg_scale": 2.5, "flow_shift": 7.0,
        "fps": 24, "rewrite": "master", "original_prompt": "a circle",
    }  # fmt: skip
    path = write("a.jsonl", json.dumps(fields, ensure_ascii=False))
    assert read_batch(path).items[0].request.model_dump() == fields


def test_a_csv_cell_takes_the_type_of_its_field(write: Write) -> None:
    batch = read_batch(write("a.csv", "prompt,width,guidance_scale,seed\na red circle, 144 ,7,\n"))
    assert batch.items[0].request.model_dump(exclude_none=True) == {
        "prompt": "a red circle", "width": 144, "guidance_scale": 7.0, "true_cfg_scale": 1.0,
    }  # fmt: skip


def test_a_csv_prompt_is_kept_as_it_is(write: Write) -> None:
    prompt = ' "a",\r\n\tb\n '
    path = write("a.csv", 'prompt\n" ""a"",\r\n\tb\n "\n')
    assert prompts(read_batch(path)) == [prompt]


def test_a_csv_record_is_numbered_by_the_line_where_it_begins(write: Write) -> None:
    path = write("a.csv", 'prompt,fps\n"a\nb\nc",24\n\n,,\nd,x\ne,24\n')
    batch = read_batch(path)
    assert [item.line for item in batch.items] == [2, 8]
    assert [bad.line for bad in batch.bad_lines] == [7]


def test_tabs_separate_the_cells_of_a_tsv_file(write: Write) -> None:
    batch = read_batch(write("a.TSV", "prompt\tseed\na, b\t7\n"))
    assert (prompts(batch), seeds(batch)) == (["a, b"], [7])


def test_a_text_file_has_a_prompt_a_line(write: Write) -> None:
    batch = read_batch(write("a.txt", "\n  a red circle \n\t\n{not json}\x0b\x0c"))
    assert [(item.line, item.request.prompt) for item in batch.items] == [(2, "a red circle"), (4, "{not json}")]
    assert batch.bad_lines == ()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa\r\nb\r\n", b"a\rb", b"a\nb", "\ufeffa\n\n\nb".encode()])
def test_byte_order_marks_and_line_ends_do_not_matter(write: Write, content: bytes) -> None:
    assert prompts(read_batch(write("a.txt", content))) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"prompt": "a"}'),
        ("a.NDJSON", '{"prompt": "a"}'),
        ("a.csv", "prompt\na"),
        ("a.tsv", "prompt\na"),
        ("a.txt", "a"),
        ("a.prompts", "a"),
        ("a", "a"),
    ],
)
def test_the_suffix_tells_the_format(write: Write, name: str, content: str) -> None:
    assert prompts(read_batch(write(name, content))) == ["a"]


def test_a_format_that_is_given_wins_over_the_suffix(write: Write) -> None:
    assert prompts(read_batch(write("a.txt", "prompt\na"), format="csv")) == ["a"]
    assert prompts(read_batch(write("a.json", '{"prompt": "a"}'), format="jsonl")) == ["a"]


@pytest.mark.parametrize(
    ("content", "format", "prompt"),
    [
        (' \n {"prompt": "a"}', None, "a"),
        ('a {"b"}', None, 'a {"b"}'),
        ("prompt\na", "csv", "a"),
        ('{"prompt": "a"}', "text", '{"prompt": "a"}'),
    ],
)
def test_standard_input_is_json_lines_if_it_begins_with_a_brace(
    monkeypatch: pytest.MonkeyPatch, content: str, format: str | None, prompt: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode()), encoding="latin-1"))
    assert prompts(read_batch("-", format=format)) == [prompt]


# ---- what is refused once for the whole file -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "is empty; write at least one prompt"),
        ("a.txt", b"\xef\xbb\xbf \r\n\t", "is empty"),
        ("a.csv", "prompt,seed\n,\n", "has no prompts"),
        ("a.txt", "a\nfähre\n".encode("latin-1"), "line 2 is not UTF-8: invalid byte 0xe4"),
        ("a.txt", "a".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.txt", "ab".encode("utf-16-be"), "line 1 contains a NUL byte"),
        ("a.jsonl", b'{"prompt": "a"}\n\0', "line 2 contains a NUL byte"),
        ("a.json", '[{"prompt": "a"}]', "write one object per line and name it a.jsonl"),
        ("a.csv", "prompt,steps\na,4\n", "line 1: unknown column 'steps'; did you mean num_inference_steps?"),
        ("a.csv", "\nPrompt\na\n", "line 2: unknown column 'Prompt'; did you mean prompt?"),
        ("a.csv", "prompt;seed\na;4\n", "separate the cells by commas"),
        ("a.csv", "a red circle\n", "the first line must name the columns, any of prompt, "),
        ("a.csv", "prompt,\na,\n", "column 2 has no name"),
        ("a.csv", "prompt,seed,prompt\na,1,b\n", "duplicate column prompt"),
        ("a.csv", "seed\n1\n", "no prompt column"),
        (
            "a.csv",
            '"prompt"x\na\n',
            "line 1, which must contain the column names, has text after a closing",
        ),
    ],
)
def test_what_is_no_batch_file_is_refused_by_name(write: Write, name: str, content: str | bytes, words: str) -> None:
    path = write(name, content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_batch(path)
    assert f"batch file {path}" in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.txt: file not found"):
        read_batch(str(tmp_path / "missing.txt"))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; give a file in it"):
        read_batch(str(tmp_path))


def test_what_cannot_be_opened_is_refused(write: Write) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        read_batch(write("a.txt", "a") + "/b.txt")


# ---- bad lines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "a", "width": 100}', "width=100: must be a multiple of 16; the nearest are 96 and 112"),
        ('{"prompt": "a", "width": 100, "fps": 0}', "fps=0: must be from 1 to 240; the nearest is 1"),
        ('{"prompt": "a", "seed": NaN}', "contains NaN, which JSON does not allow"),
        ('{"prompt": "a", "seed": -Infinity}', "contains -Infinity, which JSON does not allow"),
        ('{"prompt": "a", "flow_shift": 1e999}', "contains the number 1e999, which is too large"),
        (f'{{"prompt": "a", "seed": {"9" * 5000}}}', "contains an integer of 5000 digits"),
        ('{"prompt": "a", "prompt": "b"}', "gives 'prompt' more than once"),
        ('["a"]', "is a list; each line must be an object"),
        ('"a"', "is a string; each line must be an object"),
        ("null", "is null; each line must be an object"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"prompt": "a"', "is not JSON: expecting ',' delimiter at column 15"),
        ("a red circle", "is not JSON: expecting value at column 1"),
        ('{"prompt": "a", "steps": 3}', "steps=3: unknown field; did you mean num_inference_steps?"),
        ('{"seed": 3}', "prompt=None: is required"),
        ('{"prompt": null}', "prompt=None: is required"),
        ('{"prompt": "a", "seed": true}', "seed=True: input should be a valid integer"),
        ('{"prompt": "a", "fps": 24.0}', "fps=24.0: input should be a valid integer"),
        ('{"prompt": "\\ud83d"}', "half of a surrogate pair"),
        ('{"prompt": "a", "\\u001b[31m": 1}', r"\x1b[31m=1: unknown field"),
        ('{"prompt": "a", "size": "720p"}', "size='720p': must be WIDTH*HEIGHT"),
        ('{"prompt": "a", "size": 720}', "size=720: must be WIDTH*HEIGHT"),
        ('{"prompt": "a", "size": "1280*720", "width": 1280}', "give one or the other"),
        ('{"prompt": "a", "size": "720p", "fps": 0}', "fps=0: must be"),
    ],
)
def test_a_bad_json_line_says_what_is_wrong(write: Write, line: str, problem: str) -> None:
    batch = read_batch(write("a.jsonl", f'{{"prompt": "good"}}\n{line}\n'))
    assert [bad.line for bad in batch.bad_lines] == [2]
    assert problem in batch.bad_lines[0].problem
    assert batch.bad_lines[0].problem.isprintable()


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ("a,24.0,", "fps='24.0': must be an integer, such as 24"),
        ("a,2_4,", "fps='2_4': must be an integer"),
        ("a,\u0662,", "must be an integer"),
        (f"a,{'9' * 5000},", "must be an integer"),
        ('a,,"7,5"', "guidance_scale='7,5': must be a number with a decimal point, such as 7.0"),
        ("a,,nan", "guidance_scale='nan': must be a number"),
        ("a,,1e999", "guidance_scale=inf: must be a finite number"),
        ("a,x,y", "guidance_scale='y': must be a number"),
        ("a,24", "has 2 cells, fewer than the 3 columns"),
        ("a,b,24,", "has 4 cells, more than the 3 columns"),
        (",24,", "prompt=None: is required"),
        ('"a"b,24,', "has text after a closing double quote"),
        ('"a,24,\n', "opens a double quote that is never closed"),
        (f"{'a' * 200_000},24,", "has a cell of more than 131072 characters"),
    ],
)
def test_a_bad_csv_line_says_what_is_wrong(write: Write, cells: str, problem: str) -> None:
    batch = read_batch(write("a.csv", f"prompt,fps,guidance_scale\ngood,24,7\n{cells}"))
    assert prompts(batch) == ["good"]
    assert [bad.line for bad in batch.bad_lines] == [3]
    assert problem in batch.bad_lines[0].problem


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"prompt": "a"}\n{\n{"prompt": "a", "fps": 0}\n{"prompt": "b"}\n3'),
        ("a.csv", 'prompt,fps\n"a"x,1\nb,0\nc,24\nd'),
    ],
)
def test_every_bad_line_is_listed_and_the_good_ones_are_kept(write: Write, name: str, content: str) -> None:
    batch = read_batch(write(name, content))
    assert [bad.line for bad in batch.bad_lines] == [2, 3, 5]
    assert [item.line for item in batch.items][-1] == 4


def test_a_file_of_bad_lines_alone_lists_them(write: Write) -> None:
    batch = read_batch(write("a.jsonl", "3\n"))
    assert (batch.items, [bad.line for bad in batch.bad_lines]) == ((), [1])


# ---- defaults and sizes ----------------------------------------------------------------------------------------------


def test_a_line_wins_over_the_defaults(write: Write) -> None:
    path = write("a.jsonl", json_lines({"prompt": "a"}, {"prompt": "b", "fps": 8, "num_frames": None}))
    batch = read_batch(path, defaults={"fps": 24, "num_frames": 17, "seed": None})
    assert [(item.request.fps, item.request.num_frames) for item in batch.items] == [(24, 17), (8, 17)]
    assert seeds(batch) == [None, None]


@pytest.mark.parametrize("default", [{"width": 1280, "height": 720}, {"size": "1280*720"}])
def test_the_size_of_a_line_replaces_the_default_one(write: Write, default: dict[str, object]) -> None:
    path = write(
        "a.jsonl", json_lines({"prompt": "a", "size": "144x80"}, {"prompt": "b", "width": 960}, {"prompt": "c"})
    )
    batch = read_batch(path, defaults=default)
    assert [(item.request.width, item.request.height) for item in batch.items] == [(144, 80), (960, 720), (1280, 720)]


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ({"width": 100}, "width=100: must be a multiple of 16"),
        ({"size": "large"}, "size='large': must be"),
        ({"size": "1280*720", "height": 720}, "give one or the other"),
        ({"steps": 3}, "unknown field"),
    ],
)
def test_a_bad_default_is_refused_once(write: Write, defaults: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        read_batch(write("a.txt", "a\nb"), defaults=defaults)


def test_a_prompt_is_no_default(write: Write) -> None:
    with pytest.raises(ConfigError, match="prompt: cannot have a default"):
        read_batch(write("a.txt", "a"), defaults={"prompt": "b"})


# ---- seeds, copies and duplicates ------------------------------------------------------------------------------------


def test_a_line_without_a_seed_is_made_with_each_seed(write: Write) -> None:
    path = write("a.jsonl", json_lines({"prompt": "a"}, {"prompt": "b", "seed": 9}))
    batch = read_batch(path, seeds=(1, 2))
    assert [(item.line, item.request.seed) for item in batch.items] == [(1, 1), (1, 2), (2, 9)]


def test_several_videos_of_a_line_have_seeds_in_a_row(write: Write) -> None:
    path = write("a.jsonl", json_lines({"prompt": "a", "seed": 5}))
    assert seeds(read_batch(path, num_videos_per_prompt=3)) == [5, 6, 7]


def test_a_default_seed_counts_as_the_seed_of_a_line(write: Write) -> None:
    assert seeds(read_batch(write("a.txt", "a"), defaults={"seed": 5}, num_videos_per_prompt=2)) == [5, 6]


def test_seeds_above_the_largest_make_a_bad_line(write: Write) -> None:
    path = write("a.jsonl", json_lines({"prompt": "a", "seed": MAX_SEED - 1}, {"prompt": "b", "seed": MAX_SEED}))
    batch = read_batch(path, num_videos_per_prompt=2)
    rule = "2 videos need seeds up to 18446744073709551616; the maximum is 2^64-1, so start lower"
    assert seeds(batch) == [MAX_SEED - 1, MAX_SEED]
    assert batch.bad_lines == (BadLine(2, f"seed={MAX_SEED}: {rule}"),)


def test_the_same_line_twice_is_two_items(write: Write) -> None:
    batch = read_batch(write("a.txt", "a\nb\na\n"), num_videos_per_prompt=2)
    found = [(item.line, item.request.prompt) for item in batch.items]
    assert found == [(1, "a"), (1, "a"), (2, "b"), (2, "b"), (3, "a"), (3, "a")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": (1, 2), "num_videos_per_prompt": 2}, "give one or the other"),
        ({"seeds": (1,), "defaults": {"seed": 2}}, "seed=2 and a list of seeds conflict"),
        ({"seeds": (1, 2, 1)}, "seeds: 1 appears more than once"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt=0: must be 1 or more"),
        ({"seeds": (-1,)}, "seed=-1: must be from 0"),
    ],
)
def test_seeds_that_conflict_with_something_are_refused(write: Write, options: dict[str, object], words: str) -> None:
    with pytest.raises((ConfigError, InvalidRequestError), match=words):
        read_batch(write("a.txt", "a"), **options)


# ---- round trips -----------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
records = st.fixed_dictionaries(
    {"prompt": texts}, optional={"seed": st.integers(0, MAX_SEED), "guidance_scale": st.floats(0, 100)}
)


@given(st.lists(records, min_size=1))
def test_what_is_written_as_json_lines_is_read_again(written: list[dict[str, object]]) -> None:
    assert [record.fields for record in read_json_lines(json_lines(*written))] == written


@given(st.lists(records, min_size=1))
def test_what_is_written_as_csv_is_read_again(written: list[dict[str, object]]) -> None:
    file = io.StringIO(newline="")
    table = csv.DictWriter(file, ["prompt", "seed", "guidance_scale"])
    table.writeheader()
    table.writerows(written)
    assert [record.fields for record in read_csv(file.getvalue(), "a.csv", ",")] == written


@given(st.binary(), st.sampled_from(["jsonl", "csv", "text"]))
def test_any_bytes_are_read_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, data: bytes, format) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    try:
        batch = read_batch(str(path), format=format)
    except ConfigError as error:
        assert str(path) in str(error)
    else:
        assert batch.items or batch.bad_lines
