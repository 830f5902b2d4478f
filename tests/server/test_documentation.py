"""The OpenAPI document matches the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from server_stage import MODEL, SUBMISSIONS

from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.server.app import create_app
from hunyuan_local.server.auth import is_open
from hunyuan_local.server.config import ServerConfig


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = DataFolder(tmp_path_factory.mktemp("document") / "data")
    app = create_app(ServerConfig(model=MODEL, insecure=True), folder, folder.store())
    return TestClient(app).get("/openapi.json").json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((path, operation) for path, methods in document["paths"].items() for operation in methods.values())


def test_the_page_is_there(client: TestClient) -> None:
    assert "swagger" in client.get("/docs").text


def test_the_answer_that_no_route_gives_is_not_in_it(document: dict[str, Any]) -> None:
    assert not any("422" in operation["responses"] for _, operation in operations(document))
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_answer_in_json_has_a_schema(document: dict[str, Any]) -> None:
    for path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if "application/json" in answer.get("content", {}):
                assert answer["content"]["application/json"]["schema"], (path, status)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from [part["$ref"]] if "$ref" in part else []
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
            yield from references(inner)

    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= document["components"]["schemas"].keys()


@pytest.mark.parametrize(("dialect", "kinds"), [("wavespeed", 1), ("novita", 1), ("openai", 3)])
def test_submissions_are_described_in_every_form(document: dict[str, Any], dialect: str, kinds: int) -> None:
    body = document["paths"][SUBMISSIONS[dialect][0]]["post"]["requestBody"]
    assert (len(body["content"]), body["required"]) == (kinds, True)


@pytest.mark.parametrize(("dialect", "status"), [("wavespeed", "401"), ("novita", "403"), ("openai", "401")])
def test_refusals_are_described(document: dict[str, Any], dialect: str, status: str) -> None:
    responses = document["paths"][SUBMISSIONS[dialect][0]]["post"]["responses"]
    assert {"200", "400", "413", "429", "500", "503", status} <= responses.keys()


def test_a_relaxed_server_describes_what_it_takes(make_client: Callable[..., TestClient]) -> None:
    paths = make_client(relaxed=True).get("/openapi.json").json()["paths"]
    schema = paths[SUBMISSIONS["novita"][0]]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["steps"]["maximum"] == 100


def test_without_keys_none_is_asked_for(document: dict[str, Any]) -> None:
    assert not any("security" in operation for _, operation in operations(document))


def test_keys_are_asked_for_where_they_must_be_shown(make_client: Callable[..., TestClient]) -> None:
    document = make_client(api_keys=("k",)).get("/openapi.json").json()
    for path, operation in operations(document):
        assert ("security" in operation) != is_open(path)
        assert all(
            name in document["components"]["securitySchemes"] for x in operation.get("security", []) for name in x
        )
