"""The documented schemas match what submissions are validated against."""

from __future__ import annotations

from typing import Any

import pytest

from hunyuan_local.errors import InvalidRequestError
from hunyuan_local.wires import novita, openai, schemas, wavespeed

DIALECTS = {dialect.NAME: dialect for dialect in (wavespeed, novita, openai)}
NOVITA = {"model_name": "hunyuan-video-fast", "width": 1280, "height": 720, "seed": -1, "steps": 30, "prompt": "a"}
BODIES: dict[str, dict[str, Any]] = {"wavespeed": {"prompt": "a"}, "novita": NOVITA, "openai": {"prompt": "a"}}


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("name", DIALECTS)
def test_every_field_of_a_submission_is_described_without_references(name: str, relaxed: bool) -> None:
    schema = schemas.submission_schema(name, relaxed, 5000)
    assert DIALECTS[name].SubmissionBody.model_fields.keys() <= schema["properties"].keys()
    assert "$ref" not in str(schema) and "$defs" not in schema


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("name", DIALECTS)
def test_the_ends_of_every_range_are_true(name: str, relaxed: bool) -> None:
    wire, schema = DIALECTS[name], schemas.submission_schema(name, relaxed, 5000)
    for field, described in schema["properties"].items():
        for options in [described, *described.get("anyOf", [])]:
            for end, beyond in (("minimum", -1), ("maximum", 1)):
                if end in options:
                    value = options[end]
                    wire.request_from_wire(BODIES[name] | {field: value}, relaxed=relaxed)
                    with pytest.raises(InvalidRequestError):
                        wire.request_from_wire(BODIES[name] | {field: value + beyond}, relaxed=relaxed)


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_required_is_required(name: str) -> None:
    for field in schemas.submission_schema(name, False, 5000)["required"]:
        with pytest.raises(InvalidRequestError, match=field):
            DIALECTS[name].request_from_wire({key: value for key, value in BODIES[name].items() if key != field})


def test_the_sizes_are_those_of_the_pages() -> None:
    described = schemas.submission_schema("wavespeed", False, 5000)["properties"]["size"]
    assert described["enum"] == ["1280*720", "720*1280"]
    assert len(schemas.submission_schema("novita", False, 5000)["oneOf"]) == 2


def test_the_shorter_limit_of_a_prompt_is_reported() -> None:
    schema = [schemas.submission_schema("novita", False, limit) for limit in (5000, 100)]
    assert [each["properties"]["prompt"]["maxLength"] for each in schema] == [2000, 100]


def test_fields_of_a_form_are_never_null() -> None:
    form = schemas.form_schema(schemas.submission_schema("openai", False, 5000))
    assert "null" not in str(form["properties"])


def test_another_dialect_is_not_known() -> None:
    with pytest.raises(ValueError, match="unknown dialect"):
        schemas.submission_schema("x", False, 5000)
