"""The image of a submission as the client sent it; the server fetches and checks it before it becomes a job's."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from ..errors import FieldProblem, InvalidRequestError
from ..images import ImageFit

_PASSWORD = re.compile(r"//[^/?#]*@")
_SHOWN = 60


@dataclass(frozen=True)
class SentFile:
    """A file in a form."""

    name: str
    content: bytes = dataclasses.field(repr=False)


@dataclass(frozen=True)
class SentImage:
    """An image that is not fetched, decoded or checked yet.

    Attributes:
        field: the name of its field in the body, for messages.
        source: an http(s) URL, a data URI or base64 text; or a file.
        fit: how it gets the size of the video; None is the default.
        sizes: (width, height) pairs of which the one nearest to its shape is used if the body has no size.
    """

    field: str
    source: str | SentFile = dataclasses.field(repr=False)
    fit: ImageFit | None = None
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def shown(self) -> str:
        """The start of the text, without a password, or the name of the file."""
        text = self.source.name if isinstance(self.source, SentFile) else self.source
        text = _PASSWORD.sub("//***@", text[:2048])
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

    def problem(self, rule: str) -> InvalidRequestError:
        """The error that refuses it."""
        return InvalidRequestError([FieldProblem(self.field, self.shown, rule)])
