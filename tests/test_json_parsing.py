"""JSON input: what JSON allows is accepted; what only Python allows is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from wire_strategies import JSON, unhurried

from hunyuan_local.wires.json_parsing import MAX_DEPTH, parse_json


def refusal(text: str | bytes) -> str:
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    return str(caught.value)


@unhurried
@given(JSON)
def test_what_can_be_read_can_be_written(value: object) -> None:
    try:
        read = parse_json(json.dumps(value))
    except ValueError:
        return
    assert json.dumps(read, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, true, "é"]}', b'"\\ud83e\\udd8a"', "18446744073709551615"])
def test_json_is_read(text: str | bytes) -> None:
    assert parse_json(text) == json.loads(text)


def test_json_may_begin_with_a_byte_order_mark() -> None:
    assert parse_json(b'\xef\xbb\xbf{"prompt": "a fox"}') == {"prompt": "a fox"}


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_names_of_numbers_are_refused(text: str) -> None:
    assert "which is not a JSON number" in refusal(text)


@pytest.mark.parametrize("text", ["1e999", "[-1e999]"])
def test_numbers_beyond_all_others_are_refused(text: str) -> None:
    assert "which is too large" in refusal(text)


@pytest.mark.parametrize("text", ['"\\ud800"', '["a\\udfff"]', '{"\\ud83d": 1}'])
def test_halves_of_surrogate_pairs_are_refused(text: str) -> None:
    assert "half of a surrogate pair" in refusal(text)


def test_what_is_not_utf_8_is_refused_with_the_place() -> None:
    assert refusal(b'"a\xff"') == "is not UTF-8: byte 2 cannot be decoded"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_has_a_limit(opening: str, closing: str) -> None:
    assert parse_json(opening * MAX_DEPTH + "1" + closing * MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 50_000):
        assert f"more than {MAX_DEPTH} levels" in refusal(opening * depth + "1" + closing * depth)


@pytest.mark.parametrize("text", ["", "{", "9" * 5000, "'a'", '{"a": 1} 2'])
def test_anything_else_is_refused(text: str) -> None:
    assert refusal(text)
