"""WaveSpeed's endpoints other than submission and result, as documented."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from wire_strategies import JSON, unhurried

from hunyuan_local.errors import InvalidRequestError
from hunyuan_local.wires import wavespeed_account
from hunyuan_local.wires.base import Listing


def listing(**fields: Any) -> Listing:
    return wavespeed_account.list_from_wire(fields)


def refusal(**fields: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        listing(**fields)
    return str(caught.value)


def test_the_example_of_the_page() -> None:
    assert listing(page=1, page_size=100) == Listing(limit=100, offset=0)


def test_the_defaults_are_those_of_the_page() -> None:
    assert listing() == listing(page=1, page_size=100)


@pytest.mark.parametrize(("page", "size", "offset"), [(1, 10, 0), (3, 10, 20), (1_000_000, 100, 99_999_900)])
def test_pages_are_counted_from_1(page: int, size: int, offset: int) -> None:
    found = listing(page=page, page_size=size)
    assert (found.offset, wavespeed_account.page_of(found)) == (offset, page)


@pytest.mark.parametrize("fields", [{"page": 0}, {"page_size": 0}, {"page_size": 101}, {"page": "1"}, {"x": 1}])
def test_other_pages_are_refused(fields: dict[str, Any]) -> None:
    assert next(iter(fields)) in refusal(**fields)


@pytest.mark.parametrize(
    ("word", "statuses"),
    [
        ("created", ("queued",)),
        ("processing", ("running",)),
        ("completed", ("succeeded",)),
        ("failed", ("failed", "canceled")),
    ],
)
def test_status_words_are_the_pages(word: str, statuses: tuple[str, ...]) -> None:
    assert listing(status=word).statuses == statuses


def test_times_are_read() -> None:
    found = listing(created_after="2023-10-01T00:00:00Z", created_before="2023-10-02T00:00:00")
    assert (found.created_from, found.created_before) == (
        datetime(2023, 10, 1, tzinfo=UTC),
        datetime(2023, 10, 2, tzinfo=UTC),
    )


def test_what_is_no_time_is_refused() -> None:
    assert "created_after='today': must be a time in ISO 8601" in refusal(created_after="today")


def test_another_model_has_no_predictions_here() -> None:
    assert listing(model="wavespeed-ai/flux-dev").impossible
    assert not listing(model="wavespeed-ai/hunyuan-video/t2v").impossible


def test_ids_to_be_deleted_are_taken_once_each() -> None:
    assert wavespeed_account.delete_from_wire({"ids": ["b", "a", "b"]}) == ["b", "a"]


@unhurried
@given(JSON)
def test_any_body_is_taken_or_refused(body: object) -> None:
    for read in (wavespeed_account.list_from_wire, wavespeed_account.delete_from_wire):
        try:
            read(body)
        except InvalidRequestError as error:
            assert str(error)
