"""How a field is refused: ranges, grids, and what pydantic found wrong, in this project's words."""

from __future__ import annotations

import difflib
import math
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import FieldProblem

Number = TypeVar("Number", int, float)


def check_range(value: Number, low: Number, high: Number) -> Number:
    """The value, if it is from ``low`` to ``high``.

    Raises:
        ValueError: it is not; names the nearest that is.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number from {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"must be from {low} to {high}; the nearest is {min(max(value, low), high)}")
    return value


def check_grid(value: int, step: int, offset: int, low: int, high: int | None, rule: str) -> int:
    """The value, if it is ``offset`` plus a multiple of ``step``, from ``low`` to ``high``.

    Raises:
        ValueError: it is not ``rule``; names the nearest that are.
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
    """What pydantic found wrong with the fields of a ``cls``, in this project's words."""
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
