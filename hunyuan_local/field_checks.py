"""Checks of field values: ranges and grids; pydantic's errors as :class:`FieldProblem`."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import FieldProblem

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Limits:
    """Allowed values of a numeric field, as metadata of its annotation; pydantic itself ignores it.

    Attributes:
        low, high: the smallest and the largest allowed value.
        above_low: ``low`` itself is not allowed.
    """

    low: float
    high: float
    above_low: bool = False

    def __str__(self) -> str:
        """Such as ``[1..100]``."""
        high = "2^64-1" if self.high == 2**64 - 1 else f"{self.high:g}"
        return f"[{self.low:g}<x<={high}]" if self.above_low else f"[{self.low:g}..{high}]"


def check_range(value: Number, low: Number, high: Number) -> Number:
    """Return the value if it is between ``low`` and ``high``, both included.

    Raises:
        ValueError: it is outside; the message names the nearest allowed value.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number from {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"must be from {low} to {high}; the nearest is {min(max(value, low), high)}")
    return value


def check_grid(value: int, step: int, offset: int, low: int, high: int | None, rule: str) -> int:
    """Return the value if it is ``offset`` plus a multiple of ``step``, between ``low`` and ``high``.

    Raises:
        ValueError: it is not; the message states ``rule`` and names the nearest allowed values.
    """
    if value < low or (high is not None and value > high):
        limits = f"from {low} to {high}" if high is not None else f"at least {low}"
        raise ValueError(f"must be {rule}, {limits}; the nearest is {low if value < low else high}")
    if value % step != offset:
        below = value - (value - offset) % step
        nearest = [v for v in (below, below + step) if v >= low and (high is None or v <= high)]
        raise ValueError(f"must be {rule}; the nearest are {' and '.join(map(str, nearest))}")
    return value


def field_problems(cls: type[BaseModel], error: ValidationError) -> list[FieldProblem]:
    """Translate pydantic's validation errors for ``cls`` into :class:`FieldProblem`."""
    return [_to_problem(cls, item) for item in error.errors()]


def _to_problem(cls: type[BaseModel], item: Any) -> FieldProblem:
    field = str(item["loc"][0]) if item["loc"] else "request"
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        close = [name for name in cls.model_fields if field in name]
        close = close or difflib.get_close_matches(field, cls.model_fields, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return FieldProblem(field, value, f"unknown field; {hint}allowed are {', '.join(cls.model_fields)}")
    if kind == "missing":
        return FieldProblem(field, None, "is required")
    if kind == "value_error":
        return FieldProblem(field, value, str(item["ctx"]["error"]))
    return FieldProblem(field, value, item["msg"].lower())
