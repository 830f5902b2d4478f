"""Reads submissions sent as JSON or as a form, with some of their fields in nested objects of extra fields.

The values of a form are all strings, and names of nested fields are in brackets: ``extra_params[seed]``. Does not
depend on the meaning of the fields or on how a form is received.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from ..errors import FieldProblem, InvalidRequestError
from ..schema import GenerationRequest
from .base import Body, read_body
from .json_parsing import parse_json
from .sent_image import SentFile


class Form(dict[str, "str | SentFile"]):
    """The fields of a form by name. An empty field is an empty string, as browsers send it."""


_LONGEST_NAME = 200
_REQUIRED = frozenset(name for name, field in GenerationRequest.model_fields.items() if field.is_required())
_NESTED = re.compile(r"([^\[\]]+)(?:\[([^\[\]]+)\](.*))?", re.DOTALL)


def _from_text(value: object) -> object:
    """The JSON value of a form's text; other text stays unchanged and fails validation later."""
    try:
        return parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return value


FROM_TEXT = BeforeValidator(_from_text)
Whole = Annotated[int, FROM_TEXT]
Number = Annotated[float, FROM_TEXT]


def read_fields(
    model: type[Body], body: object, containers: frozenset[str], images: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The fields of a body by name, whether at the top level or nested; null fields are dropped.

    Empty fields of a form are dropped too, unless they are required.

    Args:
        model: has every field, none of them required.
        containers: names of objects of extra fields; they may also be JSON strings.
        images: names of fields that may also be a file or an object.

    Raises:
        InvalidRequestError: names each field that is refused, or given twice with different values.
    """
    given: dict[str, Any] = {}
    if not isinstance(body, Mapping):
        raise InvalidRequestError([FieldProblem("body", body, "must be a JSON object or a form")])
    pending, is_form = [body], isinstance(body, Form)
    while pending:
        layer: dict[str, Any] = {}
        for key, value in pending.pop().items():
            if len(key) > _LONGEST_NAME:
                raise InvalidRequestError([FieldProblem(f"{key[:20]}...", value, "unknown field; remove it")])
            name, inner, rest = found.groups() if (found := _NESTED.fullmatch(key)) else (key, None, "")
            if value is None or (is_form and value == "" and _may_be_empty(model, name, containers)):
                continue
            if isinstance(value, SentFile) and key not in images:
                raise InvalidRequestError(
                    [FieldProblem(key, value.name, "is a file, but this field takes none; omit it")]
                )
            if name in images and inner is not None:
                layer[name] = _with_part(name, layer.get(name), inner + rest, value)
            elif name not in containers:
                layer[key] = value
            elif inner is None:
                pending.append(_object(name, value))
            else:
                pending.append({inner + rest: value})
        for name, value in ((name, field) for name, field in read_body(model, layer) if name in layer):
            if given.setdefault(name, value) != value:
                rule = f"is given twice, also as {repr(given[name])[:60]}; send it once"
                raise InvalidRequestError([FieldProblem(name, value, rule)])
    return given


def _with_part(name: str, known: object, part: str, value: object) -> dict[str, Any]:
    """An object of which a form sends each field by itself, such as ``name[part]``."""
    if not isinstance(known, dict | None):
        raise InvalidRequestError(
            [FieldProblem(f"{name}[{part}]", value, f"is given twice, also as {name}; send it once")]
        )
    return (known or {}) | {part: value}


def _may_be_empty(model: type[Body], name: str, containers: frozenset[str]) -> bool:
    """Whether a field may be empty: it is known and optional."""
    return name in containers or (name in model.model_fields and name not in _REQUIRED)


def _object(name: str, value: object) -> Mapping[str, Any]:
    read = _from_text(value)
    if not isinstance(read, Mapping):
        raise InvalidRequestError([FieldProblem(name, value, "must be a JSON object")])
    return read
