"""Reads request bodies: JSON, and forms as mappings from field to text.

:class:`hunyuan_local.server.middleware.BodyLimit` limits their size. Independent of the meaning of the fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from ..errors import FieldProblem, InvalidRequestError
from ..wires.forms import Form
from ..wires.json_parsing import parse_json

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
_MOST_FIELDS = 100


async def read_json(request: Request) -> Any:
    """The JSON body of a request.

    Raises:
        InvalidRequestError: the content type is wrong, or the body is not valid JSON.
        BodyTooLargeError: see :class:`hunyuan_local.server.middleware.BodyLimit`.
    """
    kind = _content_type(request)
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise _wrong_type(kind, "application/json")
    body = await request.body()
    try:
        return parse_json(body)
    except ValueError as error:
        raise InvalidRequestError([FieldProblem("body", body, f"is not valid JSON: {error}")]) from error


async def read_json_or_form(request: Request) -> Any:
    """The JSON or form body of a request; raises as :func:`read_json`."""
    kind = _content_type(request)
    if kind == MULTIPART:
        return await _read_multipart(request)
    if kind == URLENCODED:
        return _read_urlencoded(await request.body())
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise _wrong_type(kind, f"application/json, {MULTIPART} or {URLENCODED}")
    return await read_json(request)


JsonBody = Annotated[Any, Depends(read_json)]
JsonOrFormBody = Annotated[Any, Depends(read_json_or_form)]


async def _read_multipart(request: Request) -> Form:
    charset = request.headers["content-type"].lower().partition("charset=")[2].strip('"').partition(";")[0]
    if charset not in ("", "utf-8"):
        raise _wrong_type(f"{MULTIPART}; charset={charset}", f"{MULTIPART} in UTF-8")
    raw = await request.body()
    async with request.form(max_fields=_MOST_FIELDS, max_files=_MOST_FIELDS, max_part_size=len(raw)) as form:
        items: list[tuple[str, str]] = []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if not value.filename and not value.size:  # browsers send this for an empty file input
                    continue
                rule = "is a file, which is not supported: videos are generated from text alone; omit it"
                raise InvalidRequestError([FieldProblem(name, value.filename, rule)])
            items.append((name, value))
    try:
        raw.decode()  # the parser silently reads invalid UTF-8 as Latin-1
    except UnicodeDecodeError as error:
        raise InvalidRequestError([FieldProblem("body", raw, f"is not UTF-8: byte {error.start}")]) from error
    return _once_each(items)


def _read_urlencoded(raw: bytes) -> Form:
    try:
        items = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise InvalidRequestError([FieldProblem("body", raw, f"is not a valid form: {error}")]) from error
    return _once_each(items)


def _once_each(items: Iterable[tuple[str, str]]) -> Form:
    fields = Form()
    for name, value in items:
        fields[name] = fields.get(name) or value
        if value and fields[name] != value:
            raise InvalidRequestError([FieldProblem(name, value, f"is given twice, also as {fields[name][:60]!r}")])
    return fields


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _wrong_type(kind: str, taken: str) -> InvalidRequestError:
    return InvalidRequestError([FieldProblem("content-type", kind, f"is not supported; send {taken}")])
