"""Conditional requests: entity tags, and 304 for callers whose copy is current. RFC 9110, sections 8.8 and 13.

Independent of jobs.
"""

from __future__ import annotations

import hashlib
from email.utils import parsedate_to_datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Scope

# Headers that a 304 response omits, since they describe the body.
_OF_THE_BODY = ("content-length", "content-type", "last-modified", "accept-ranges")


def strong_etag(content: bytes | memoryview) -> str:
    """The entity tag of a body, a hash of its bytes."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def is_known(scope: Scope, headers: MutableHeaders) -> bool:
    """Whether a GET or HEAD request has a current copy of the response with these headers.

    If-Modified-Since applies only without If-None-Match; both dates are in whole seconds.
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
    except (ValueError, TypeError):  # not a date, or a date without a time zone: ignore it
        return False


def not_modified(headers: MutableHeaders) -> Response:
    """The 304 response that replaces a response with these headers."""
    return Response(
        status_code=304, headers={name: value for name, value in headers.items() if name not in _OF_THE_BODY}
    )
