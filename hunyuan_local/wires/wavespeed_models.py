"""The JSON objects of WaveSpeed's dialect: what a server receives, what it answers, and what we read at a service."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import FailFast, Field

from ..schema import RewriteMode
from .base import Answer, Body, Lenient, Reply

PredictionStatus = Literal["created", "processing", "completed", "failed"]

SUCCESS: dict[str, Any] = {"code": 200, "message": "success"}


# What a server receives


class SubmissionBody(Body):
    """What a submission says."""

    prompt: str
    size: str = "1280*720"
    seed: int = -1
    num_inference_steps: int = 30
    enable_sync_mode: bool = False
    enable_base64_output: bool = False
    rewrite: RewriteMode | None = None  # on no page of the service: of servers of one's own alone


class SubmissionQuery(Body):
    """What the URL of a submission says."""

    webhook: Annotated[str, Field(json_schema_extra={"format": "uri"})] | None = None


_Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ListBody(Body):
    """Which page of which predictions; both numbers are required on the page and have defaults there."""

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=100)] = 100
    model: str | None = None
    status: PredictionStatus | None = None
    created_after: _Moment | None = None
    created_before: _Moment | None = None


class DeleteBody(Body):
    """Which predictions to delete; those that are not known are ignored, as the page says."""

    ids: Annotated[list[str], FailFast()]


# What a server answers


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
    status: PredictionStatus
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


class CallSchema(Reply):
    """How a model is called."""

    type: Literal["model_run"]
    method: Literal["POST"]
    api_path: str
    request_schema: Annotated[dict[str, Any], Field(description="JSON Schema of the body.")]


class ModelSchemas(Reply):
    api_schemas: list[CallSchema]


class ListedModel(Reply):
    """A model that videos can be made with."""

    model_id: str
    name: str
    type: Literal["text-to-video"]
    description: str
    base_price: Annotated[float, Field(description="Always 0: nothing is paid for here.")]
    api_schema: ModelSchemas


class ModelListReply(_Envelope):
    data: list[ListedModel]


class WaveSpeedFault(Reply):
    code: int
    message: str
    error: str


# What we rely on of a service's answers


class _TimingsAnswer(Answer):
    inference: Lenient[float] = None


class _PredictionAnswer(Answer):
    id: Annotated[str, Field(min_length=1)]
    status: str
    outputs: list[str] | None = None
    has_nsfw_contents: Lenient[list[bool]] = None
    created_at: Lenient[str] = None
    error: Lenient[str] = None
    code: Lenient[int] = None
    timings: Lenient[_TimingsAnswer] = None


class ResultAnswer(Answer):
    data: _PredictionAnswer


class _IdAnswer(Answer):
    id: Annotated[str, Field(min_length=1)]


class SubmittedAnswer(Answer):
    data: _IdAnswer


class _DeletedCountAnswer(Answer):
    deleted_count: int


class DeletedAnswer(Answer):
    data: _DeletedCountAnswer
