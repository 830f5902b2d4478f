"""The OpenAPI document: FastAPI's, corrected and completed.

FastAPI knows the paths and the schemas of successful responses. This module adds the request bodies with the server's
actual ranges, each dialect's error responses, and the API keys. It removes FastAPI's 422 response, which no route
uses.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ..wires import openai, schemas, wavespeed
from ..wires.base import Body, Fault, FaultKind
from .auth import is_open, takes_bare_key
from .bodies import MULTIPART, URLENCODED
from .config import ServerConfig
from .error_answers import DIALECTS, dialect_of, fault_reply

_ALWAYS: tuple[FaultKind, ...] = ("no_key", "unauthorized", "internal", "unavailable")
_UNCHANGED = "If-None-Match matches the current entity tag, so the body is not sent."
_MEANINGS: dict[FaultKind, str] = {
    "no_key": "No key, or a wrong one.",
    "invalid": "The request is invalid.",
    "unauthorized": "No key, or a wrong one.",
    "forbidden": "The address is invalid or has expired.",
    "not_found": "There is no such job, or it has no video yet.",
    "too_large": "The body is too large.",
    "rate_limited": "Too many jobs are waiting; Retry-After gives the seconds to wait.",
    "internal": "An unexpected error.",
    "unavailable": "The job store cannot be used, or the disk is full.",
}


def refusals(dialect_name: str | None, *kinds: FaultKind) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route with these kinds of faults; for a dialect's routes, adds those they all share."""
    dialect = None if dialect_name is None else DIALECTS[dialect_name]
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds if dialect is None else (*kinds, *_ALWAYS):
        status, reply = fault_reply(dialect, Fault(kind, ""))
        known = found.setdefault(status, {"model": type(reply), "description": ""})
        if _MEANINGS[kind] not in known["description"]:
            known["description"] = f"{known['description']} {_MEANINGS[kind]}".strip()
    return found


def file_responses(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that sends a file; the first media type supports range requests."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        200: {"content": dict.fromkeys(kinds, binary)},
        206: {
            "description": "Ranges of the file.",
            "content": dict.fromkeys((kinds[0], "multipart/byteranges"), binary),
        },
        304: {"description": _UNCHANGED},
        416: {"description": "The file ends before the range.", "content": {"text/plain": {}}},
    }


def json_body(model: type[Body]) -> dict[str, Any]:
    """The ``openapi_extra`` of a route with a JSON body."""
    return {"requestBody": _request_body({"application/json": model.model_json_schema()})}


def query(model: type[Body]) -> dict[str, Any]:
    """The ``openapi_extra`` of a route with query parameters."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": schemas.without_null(field)}
            for name, field in schema["properties"].items()
        ]
    }


def install(app: FastAPI, config: ServerConfig) -> None:
    """Make the app serve this document; it is built on the first request for it."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = _completed(document, config)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # as FastAPI's documentation does


def _completed(document: dict[str, Any], config: ServerConfig) -> dict[str, Any]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            if method == "get" and dialect_of(path) is not None:
                operation["responses"]["304"] = {"description": _UNCHANGED}
            if config.api_keys and not is_open(path):
                operation["security"] = [{"bearer": []}, *([{"bareKey": []}] if takes_bare_key(path) else [])]
    parts = document.setdefault("components", {})
    for name in ("HTTPValidationError", "ValidationError"):
        parts.get("schemas", {}).pop(name, None)
    if config.api_keys:
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "bareKey": {"type": "apiKey", "in": "header", "name": "Authorization"},
        }
    for name, dialect in DIALECTS.items():
        schema = schemas.submission_schema(name, config.relaxed, config.max_prompt_characters)
        kinds = {"application/json": schema}
        if name == openai.NAME:
            kinds |= dict.fromkeys((MULTIPART, URLENCODED), schemas.form_schema(schema))
        document["paths"][dialect.SUBMIT_PATH]["post"]["requestBody"] = _request_body(kinds)
    of_image = schemas.image_schema(config.relaxed, config.max_prompt_characters)
    post = document["paths"][wavespeed.IMAGE_SUBMIT_PATH]["post"]
    post["requestBody"] = _request_body({"application/json": of_image})
    return document


def _request_body(kinds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"required": True, "content": {kind: {"schema": schema} for kind, schema in kinds.items()}}
