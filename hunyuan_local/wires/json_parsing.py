"""A strict parser for JSON from outside: finite numbers, valid Unicode, limited nesting.

Python's parser accepts more than JSON allows, some of which would fail only later.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 32


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON text; bytes must be UTF-8.

    Raises:
        ValueError: the text is refused; the message says why.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")  # with or without a byte order mark, which Windows editors add
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        _check_depth(value)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: byte {error.start} cannot be decoded") from error
    except UnicodeEncodeError as error:
        raise ValueError("contains half of a surrogate pair, such as \\ud83d; send complete characters") from error
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
    raise ValueError(f"contains {name}, which is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"contains the number {text[:20]}, which is too large")
    return number
