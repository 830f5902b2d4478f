"""A pydantic model as JSON text and back, whatever the names of files in it are made of."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

_REPLACEMENT = "\ufffd"

M = TypeVar("M", bound=BaseModel)


def json_text(model: BaseModel, *, indent: int | None = None) -> str:
    """The model as JSON; a byte of a file's name that is no UTF-8 becomes an escape such as ``\\udcff``.

    Python's ``json`` reads that back as the very name (:func:`os.fsencode` gives its bytes), and so does
    :func:`from_json_text`; pydantic does not.
    """
    text = ""
    with contextlib.suppress(PydanticSerializationError):
        text = model.model_dump_json(indent=indent)
    if text and _REPLACEMENT not in text:  # which pydantic puts for such a byte in a key
        return text
    separators = (",", ":") if indent is None else None
    return json.dumps(model.model_dump(), default=_plain, indent=indent, separators=separators)


def from_json_text(kind: type[M], text: str) -> M:
    """The model of a text of :func:`json_text`.

    Raises:
        ValueError: it is no such text (pydantic's ``ValidationError`` is one).
    """
    if "\\ud" in text:  # an escape of half a character
        return kind.model_validate(json.loads(text))
    return kind.model_validate_json(text)


def _plain(value: Any) -> str:
    """What JSON has no kind for: times, else paths."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
