"""JSON from outside, read strictly: finite numbers, whole characters, bounded depth.

Python's own reader takes more than JSON allows, and some of it would fail only later. Knows nothing
about what the values mean.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 32


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; bytes must be UTF-8.

    Raises:
        ValueError: why it is refused, in words.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")  # with the mark that editors on Windows put first, or without
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        _check_depth(value)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: byte {error.start} cannot be read") from error
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair, such as \\ud83d alone; send whole characters") from error
    except RecursionError as error:
        raise _too_deep() from error
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"is nested more than {MAX_DEPTH} levels deep")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"holds the number {text[:20]}, which is too large")
    return number
