"""What is wrong with a request, said of the fields of the body that it came in.

A body of a dialect says some of our fields in others: a size is our width and height, a length in seconds our frames.
Knows nothing about any particular dialect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import FieldProblem

_SIZE = re.compile(r"\b(\d+)x(\d+)\b")


@dataclass(frozen=True)
class Said:
    """How a body says one of our fields: in which field of its own, and with which value.

    Attributes:
        part: what of that value ours is, where there is more in it, such as the width of a size.
        meaning: what it comes to, where that is not to be seen, such as the frames of a length.
    """

    field: str
    value: object
    part: str = ""
    meaning: str = ""


def in_its_words(problems: Iterable[FieldProblem], said: Mapping[str, Said]) -> list[FieldProblem]:
    """The problems of our fields as those of the body's, each of its fields named once and with the value sent.

    Args:
        said: by our field; one that is missing is called the same there.
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
    # Sizes are proposed in the way that this body writes them.
    return _SIZE.sub(r"\1*\2", text) if isinstance(how.value, str) and "*" in how.value else text
