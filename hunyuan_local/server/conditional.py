"""What a caller has already: entity tags, and the answer 304 to a call that names one. RFC 9110, 8.8 and 13.

Knows nothing about jobs.
"""

from __future__ import annotations

import hashlib
from email.utils import parsedate_to_datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Scope

# Of an answer that is not sent, as it would say more of the body.
_OF_THE_BODY = ("content-length", "content-type", "last-modified", "accept-ranges")


def strong_etag(content: bytes | memoryview) -> str:
    """The entity tag of a body: the same for the same bytes alone."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def is_known(scope: Scope, headers: MutableHeaders) -> bool:
    """Whether a GET or HEAD is of a caller who has what an answer with these headers would send.

    A date counts only where no entity tag is named, and whole seconds are compared.
    """
    asked = Headers(scope=scope)
    if scope["method"] not in ("GET", "HEAD"):
        return False
    if "if-none-match" in asked:
        tags = [tag.strip() for value in asked.getlist("if-none-match") for tag in value.split(",")]
        return "*" in tags or headers["etag"] in [tag.removeprefix("W/") for tag in tags]
    if "if-modified-since" not in asked or "last-modified" not in headers:
        return False
    try:
        since, changed = (parsedate_to_datetime(at) for at in (asked["if-modified-since"], headers["last-modified"]))
        return changed <= since
    except (ValueError, TypeError):  # no date, or one without a time zone: as good as none
        return False


def not_modified(headers: MutableHeaders) -> Response:
    """The answer 304 in the place of one with these headers."""
    return Response(
        status_code=304, headers={name: value for name, value in headers.items() if name not in _OF_THE_BODY}
    )
