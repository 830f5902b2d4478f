"""Models as JSON, also with file names that are not UTF-8."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel

from hunyuan_local.json_text import from_json_text, json_text

RAW = os.fsdecode(b"r\xff.mp4")


class Named(BaseModel):
    path: Path
    files: dict[str, str] = {}


def test_usual_names_are_written_as_pydantic_writes_them() -> None:
    named = Named(path=Path("\xe9.mp4"))
    assert json_text(named) == named.model_dump_json()


def test_a_raw_byte_is_escaped_and_read_back() -> None:
    text = json_text(Named(path=Path(RAW), files={RAW: "1"}))
    assert text == r'{"path":"r\udcff.mp4","files":{"r\udcff.mp4":"1"}}'
    assert os.fsencode(json.loads(text)["path"]) == b"r\xff.mp4"
    assert from_json_text(Named, text) == Named(path=Path(RAW), files={RAW: "1"})


def test_a_usual_text_is_read_too() -> None:
    assert from_json_text(Named, '{"path": "a\\\\ud.mp4"}') == Named(path=Path("a\\ud.mp4"))


def test_a_raw_byte_in_a_key_alone_is_kept_too() -> None:
    assert from_json_text(Named, json_text(Named(path=Path("a"), files={RAW: "1"}))).files == {RAW: "1"}
