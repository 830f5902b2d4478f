"""Pydantic models to JSON and back, including file names that are not valid UTF-8."""

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
    """Serialize a model to JSON; bytes of a file name that are not UTF-8 become escapes such as ``\\udcff``.

    Python's ``json`` and :func:`from_json_text` decode them to the original name, and :func:`os.fsencode` then gives
    the original bytes. Pydantic cannot decode them.
    """
    text = ""
    with contextlib.suppress(PydanticSerializationError):
        text = model.model_dump_json(indent=indent)
    if text and _REPLACEMENT not in text:  # pydantic writes it for such bytes in keys
        return text
    separators = (",", ":") if indent is None else None
    return json.dumps(model.model_dump(), default=_plain, indent=indent, separators=separators)


def from_json_text(kind: type[M], text: str) -> M:
    """Parse the output of :func:`json_text`.

    Raises:
        ValueError: the text is invalid (pydantic's ``ValidationError`` is a ValueError).
    """
    if "\\ud" in text:  # an escaped surrogate
        return kind.model_validate(json.loads(text))
    return kind.model_validate_json(text)


def _plain(value: Any) -> str:
    """Convert types that JSON lacks: datetimes and paths."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
