"""Submissions that come as JSON or as a form, with some of their fields inside an object of extras.

A form's values are all texts, and a nested field's name is in brackets: ``extra_params[seed]``.
Knows nothing about what the fields mean, nor how a form is read from a connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from ..errors import FieldProblem, InvalidRequestError
from ..schema import GenerationRequest
from .base import Body, read_body
from .json_text import parse_json


class Form(dict[str, str]):
    """The fields of a form by name. One that was left empty is there as an empty text, as browsers send it."""


_LONGEST_NAME = 200
_REQUIRED = frozenset(name for name, field in GenerationRequest.model_fields.items() if field.is_required())
_NESTED = re.compile(r"([^\[\]]+)(?:\[([^\[\]]+)\](.*))?", re.DOTALL)


def _from_text(value: object) -> object:
    """The JSON value that a form's text spells; other text stays, to be refused as it is."""
    try:
        return parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return value


FROM_TEXT = BeforeValidator(_from_text)
Whole = Annotated[int, FROM_TEXT]
Number = Annotated[float, FROM_TEXT]


def read_fields(
    model: type[Body], body: object, containers: frozenset[str], refused: Mapping[str, str]
) -> dict[str, Any]:
    """The given fields of a body by name, wherever in it they stand; those that are null are not given.

    Of a form, fields that were left empty are not given either, unless nothing can be made without them.

    Args:
        model: has every field, none of them required.
        containers: names of objects of extras; a JSON string of an object is taken too.
        refused: fields that are known and not taken, each with the reason.

    Raises:
        InvalidRequestError: naming each field that is refused, or given twice with two values.
    """
    given: dict[str, Any] = {}
    if not isinstance(body, Mapping):
        raise InvalidRequestError([FieldProblem("body", body, "must be a JSON object or a form")])
    pending, is_form = [body], isinstance(body, Form)
    while pending:
        layer = {}
        for key, value in pending.pop().items():
            if len(key) > _LONGEST_NAME:
                raise InvalidRequestError([FieldProblem(f"{key[:20]}...", value, "unknown field; leave it out")])
            name, inner, rest = found.groups() if (found := _NESTED.fullmatch(key)) else (key, None, "")
            if value is None or (is_form and value == "" and _may_be_empty(model, name, containers, refused)):
                continue
            if name in refused:
                raise InvalidRequestError([FieldProblem(name, value, refused[name])])
            if name not in containers:
                layer[key] = value
            elif inner is None:
                pending.append(_object(name, value))
            else:
                pending.append({inner + rest: value})
        for name, value in read_body(model, layer).model_dump(exclude_unset=True).items():
            if given.setdefault(name, value) != value:
                rule = f"is given twice, also as {given[name]!r}; give it once"
                raise InvalidRequestError([FieldProblem(name, value, rule)])
    return given


def _may_be_empty(model: type[Body], name: str, containers: frozenset[str], refused: Mapping[str, str]) -> bool:
    """Whether a field is known, so that it is no mistake, and has a default."""
    return name in containers or name in refused or (name in model.model_fields and name not in _REQUIRED)


def _object(name: str, value: object) -> Mapping[str, Any]:
    read = _from_text(value)
    if not isinstance(read, Mapping):
        raise InvalidRequestError([FieldProblem(name, value, "must be a JSON object")])
    return read
