"""What a server answers in WaveSpeed's dialect; the fields are those of its pages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .base import Reply

SUCCESS: dict[str, Any] = {"code": 200, "message": "success"}


class _Envelope(Reply):
    """Stands around every successful answer."""

    code: Literal[200]
    message: Literal["success"]


class PredictionUrls(Reply):
    get: Annotated[str, Field(description="Where the state is asked for.")]


class PredictionTimings(Reply):
    inference: Annotated[int, Field(description="Computation in milliseconds; 0 until it is done.")]


class Prediction(Reply):
    """The state of a task."""

    id: str
    model: str
    outputs: Annotated[list[str], Field(description="URLs, or base64 where that was asked for; empty until done.")]
    urls: PredictionUrls
    has_nsfw_contents: Annotated[list[bool], Field(description="Whether its frames were flagged; empty if unchecked.")]
    status: Literal["created", "processing", "completed", "failed"]
    created_at: Annotated[str, Field(description="ISO 8601, in UTC.")]
    error: Annotated[str, Field(description="Empty unless it failed.")]
    timings: PredictionTimings
    code: Annotated[
        int | None, Field(description="There if it failed (1200, 1401, 1403, 5004), or a wait timed out (5004).")
    ] = None


class PredictionEvent(Prediction):
    """The call at a job's end: its state, and what was asked for."""

    input: dict[str, Any]


class PredictionReply(_Envelope):
    data: Prediction


class PredictionPage(Reply):
    page: int
    items: list[Prediction]


class PredictionListReply(_Envelope):
    data: PredictionPage


class DeletedCount(Reply):
    deleted_count: Annotated[int, Field(description="Cancelled ones included.")]


class PredictionsDeletedReply(_Envelope):
    data: DeletedCount


class Balance(Reply):
    balance: Annotated[float, Field(description="Always the same: nothing is paid for here.")]


class BalanceReply(_Envelope):
    data: Balance


class WebhookSecret(Reply):
    secret: Annotated[str, Field(description="whsec_ and the key; the key is used as it stands, not decoded.")]


class WebhookSecretReply(_Envelope):
    data: WebhookSecret


class WaveSpeedFault(Reply):
    code: int
    message: str
    error: str
