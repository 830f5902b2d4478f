"""Translates problems with our fields into problems with the fields of the received body.

A dialect may express our fields differently: a size holds our width and height, a length in seconds our number of
frames. Does not depend on any particular dialect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import FieldProblem

_SIZE = re.compile(r"\b(\d+)x(\d+)\b")


@dataclass(frozen=True)
class Said:
    """How a body expresses one of our fields: the name and the value of the field in the body.

    Attributes:
        part: the part of the value that is our field, such as the width in a size.
        meaning: what the value results in if it is not obvious, such as the frames for a length in seconds.
    """

    field: str
    value: object
    part: str = ""
    meaning: str = ""


def in_its_words(problems: Iterable[FieldProblem], said: Mapping[str, Said]) -> list[FieldProblem]:
    """Translate problems to the fields of the body; each of its fields appears once, with the value that was sent.

    Args:
        said: expression in the body by our field name; a missing field has the same name there.
    """
    rules: dict[str, dict[str, list[str]]] = {}
    found: dict[str, Said] = {}
    for problem in problems:
        how = said.get(problem.field, Said(problem.field, problem.value))
        found.setdefault(how.field, how)
        rules.setdefault(how.field, {}).setdefault(problem.rule, []).append(how.part)
    return [FieldProblem(name, how.value, _rule(how, rules[name])) for name, how in found.items()]


def _rule(how: Said, rules: Mapping[str, list[str]]) -> str:
    parts = [f"{' and '.join(filter(None, names))} {rule}".strip() for rule, names in rules.items()]
    text = "; ".join([how.meaning, *parts] if how.meaning else parts)
    # Suggest sizes in the notation of this body.
    return _SIZE.sub(r"\1*\2", text) if isinstance(how.value, str) and "*" in how.value else text
