"""WaveSpeed's other endpoints: lists, deletion, balance, models and the webhook secret.

References, all under https://wavespeed.ai/docs: docs-common-api/predictions and docs-common-api/prediction-delete;
docs-common-api/balance; docs-common-api/models; docs-api/verifying_webhook. The functions document our choices where
these pages are incomplete.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from ..errors import FieldProblem, InvalidRequestError
from ..schema import JobStatus, JobView
from .base import Listing, read_body
from .wavespeed import IMAGE_MODEL, IMAGE_SUBMIT_PATH, MODEL, SUBMIT_PATH, prediction_to_wire
from .wavespeed_models import (
    SUCCESS,
    Balance,
    BalanceReply,
    CallSchema,
    DeleteBody,
    DeletedCount,
    ListBody,
    ListedModel,
    ModelListReply,
    ModelSchemas,
    PredictionListReply,
    PredictionPage,
    PredictionsDeletedReply,
    WebhookSecret,
    WebhookSecretReply,
)

LIST_PATH = "/api/v3/predictions"
MODELS_PATH = "/api/v3/models"
BALANCE_PATH = "/api/v3/balance"
SECRET_PATH = "/api/v3/webhook/secret"
# Videos are free here. The balance must satisfy clients that check it before submitting, and must not look real.
BALANCE_USD = 1_000_000.0

# Job statuses by filter value; the documentation of the filter omits "created", but answers contain it.
_STATUSES: dict[str, tuple[JobStatus, ...]] = {
    "created": ("queued",),
    "processing": ("running",),
    "completed": ("succeeded",),
    "failed": ("failed", "canceled"),
}


def list_from_wire(body: object) -> Listing:
    """Parse the body of a list of predictions, newest first.

    Documented: ``page``, ``page_size`` up to 100, and the filters ``model``, ``status``, ``created_after``
    (inclusive) and ``created_before``, both ISO 8601. Not documented: whether ``created_before`` is inclusive (here:
    exclusive), the meaning of a time without a zone (here: UTC), and unknown statuses (here: refused).

    Raises:
        InvalidRequestError: names each invalid field as the dialect does.
    """
    fields = read_body(ListBody, body)
    return Listing(
        limit=fields.page_size,
        offset=(fields.page - 1) * fields.page_size,
        statuses=() if fields.status is None else _STATUSES[fields.status],
        created_from=_moment("created_after", fields.created_after),
        created_before=_moment("created_before", fields.created_before),
        has_image={MODEL: False, IMAGE_MODEL: True}.get(fields.model or ""),
        impossible=fields.model not in (None, MODEL, IMAGE_MODEL),
    )


def list_to_wire(jobs: list[JobView], base_url: str, page: int) -> PredictionListReply:
    """One page of jobs. Older documentation also shows ``total``; the current one does not."""
    items = [prediction_to_wire(job, base_url) for job in jobs]
    return PredictionListReply(**SUCCESS, data=PredictionPage(page=page, items=items))


def page_of(listing: Listing) -> int:
    """The page number of a list, from 1."""
    return math.floor(listing.offset / listing.limit) + 1


def delete_from_wire(body: object) -> list[str]:
    """The ids to delete, without duplicates.

    Raises:
        InvalidRequestError: names the invalid field.
    """
    return list(dict.fromkeys(read_body(DeleteBody, body).ids))


def deleted_to_wire(count: int) -> PredictionsDeletedReply:
    """The answer to a deletion."""
    return PredictionsDeletedReply(**SUCCESS, data=DeletedCount(deleted_count=count))


def balance_to_wire() -> BalanceReply:
    """The balance in US dollars, always :data:`BALANCE_USD`."""
    return BalanceReply(**SUCCESS, data=Balance(balance=BALANCE_USD))


def models_to_wire(of_text: Mapping[str, Any] | None, of_image: Mapping[str, Any] | None) -> ModelListReply:
    """The list of models; clients read the id, the type, and ``api_schema`` for submissions.

    Args:
        of_text, of_image: JSON Schema of a submission without and with an image; None if no model here takes it.
    """
    models = [] if of_text is None else [_listed(MODEL, SUBMIT_PATH, "text-to-video", "Text to video", of_text)]
    if of_image is not None:
        models.append(_listed(IMAGE_MODEL, IMAGE_SUBMIT_PATH, "image-to-video", "Image to video", of_image))
    return ModelListReply(**SUCCESS, data=models)


def _listed(
    model: str, path: str, kind: Literal["text-to-video", "image-to-video"], what: str, schema: Mapping[str, Any]
) -> ListedModel:
    call = CallSchema(type="model_run", method="POST", api_path=path, request_schema=dict(schema))
    return ListedModel(
        model_id=model,
        name=model,
        type=kind,
        description=f"{what} with HunyuanVideo, self-hosted.",
        base_price=0.0,
        api_schema=ModelSchemas(api_schemas=[call]),
    )


def secret_to_wire(secret: str) -> WebhookSecretReply:
    """The secret that signs webhooks. The answer is not documented; clients read ``data.secret``."""
    return WebhookSecretReply(**SUCCESS, data=WebhookSecret(secret=secret))


def _moment(field: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        rule = "must be a time in ISO 8601, such as 2023-10-01T00:00:00Z"
        raise InvalidRequestError([FieldProblem(field, text, rule)]) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
