"""Reads request bodies: JSON, and forms as mappings from field to text or file.

:class:`hunyuan_local.server.middleware.BodyLimit` limits their size. Independent of the meaning of the fields.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from ..errors import FieldProblem, InvalidRequestError
from ..wires.forms import Form
from ..wires.json_parsing import parse_json
from ..wires.sent_image import SentFile

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
_MOST_FIELDS = 100
_LARGE_BYTES = 64 * 1024  # parsing more than this would delay other calls; images in base64 have megabytes
# Maps each byte to one character, so that text in a form can be checked and decoded here: with UTF-8 the parser reads
# invalid text as Latin-1 without an error.
_BYTES = "latin-1"


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
        return await run_in_threadpool(parse_json, body) if len(body) > _LARGE_BYTES else parse_json(body)
    except ValueError as error:
        raise InvalidRequestError([FieldProblem("body", body, f"is not valid JSON: {error}")]) from error


async def read_json_or_form(request: Request) -> Any:
    """The JSON or form body of a request; raises as :func:`read_json`."""
    kind = _content_type(request)
    if kind == MULTIPART:
        return await _read_multipart(request)
    if kind == URLENCODED:
        return await run_in_threadpool(_read_urlencoded, await request.body())
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise _wrong_type(kind, f"application/json, {MULTIPART} or {URLENCODED}")
    return await read_json(request)


JsonBody = Annotated[Any, Depends(read_json)]
JsonOrFormBody = Annotated[Any, Depends(read_json_or_form)]


async def _read_multipart(request: Request) -> Form:
    charset = request.headers["content-type"].lower().partition("charset=")[2].strip('"').partition(";")[0]
    if charset not in ("", "utf-8"):
        raise _wrong_type(f"{MULTIPART}; charset={charset}", f"{MULTIPART} in UTF-8")
    items: list[tuple[str, str | SentFile]] = []
    # The parser stores large files on disk as they arrive; texts are limited only as a part of the body.
    raw = _as_bytes(request)
    async with raw.form(max_fields=_MOST_FIELDS, max_files=_MOST_FIELDS, max_part_size=sys.maxsize) as form:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                items.append((_text(name), _text(value)))
            elif value.filename or value.size:  # browsers send neither for an empty file input
                items.append((_text(name), SentFile(_text(value.filename or ""), await value.read())))
    return _once_each(items)


def _as_bytes(request: Request) -> Request:
    """The same request, whose form is read as bytes."""
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    kind = re.sub(r";\s*charset=[^;]*", "", request.headers["content-type"], flags=re.IGNORECASE)
    headers.append((b"content-type", f"{kind}; charset={_BYTES}".encode("latin-1")))
    return Request({**request.scope, "headers": headers}, request.receive)


def _text(raw: str) -> str:
    """The text of a part of a form.

    Raises:
        InvalidRequestError: it is not UTF-8.
    """
    content = raw.encode(_BYTES)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError([FieldProblem("body", content, f"is not UTF-8: byte {error.start}")]) from error


def _read_urlencoded(raw: bytes) -> Form:
    try:
        items = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise InvalidRequestError([FieldProblem("body", raw, f"is not a valid form: {error}")]) from error
    return _once_each(items)


def _once_each(items: Iterable[tuple[str, str | SentFile]]) -> Form:
    fields = Form()
    for name, value in items:
        fields[name] = fields.get(name) or value
        if value and fields[name] != value:
            known = repr(fields[name])[:60]
            raise InvalidRequestError([FieldProblem(name, value, f"is given twice, also as {known}")])
    return fields


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _wrong_type(kind: str, taken: str) -> InvalidRequestError:
    return InvalidRequestError([FieldProblem("content-type", kind, f"is not supported; send {taken}")])
