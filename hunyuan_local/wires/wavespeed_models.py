"""The JSON objects of the WaveSpeed dialect: bodies that servers receive and send, and answers that clients read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import FailFast, Field

from ..images import MAX_BYTES, ImageFit
from ..schema import RewriteMode
from .base import Answer, Body, Lenient, Reply

PredictionStatus = Literal["created", "processing", "completed", "failed"]

SUCCESS: dict[str, Any] = {"code": 200, "message": "success"}


# Bodies that a server receives


class CommonBody(Body):
    """The fields of every submission."""

    prompt: str
    seed: int = -1
    num_inference_steps: int = 30
    enable_sync_mode: bool = False
    enable_base64_output: bool = False
    rewrite: RewriteMode | None = None  # not part of WaveSpeed's API; only self-hosted servers have it


class SubmissionBody(CommonBody):
    """The body of a submission without an image."""

    size: str = "1280*720"


class ImageSubmissionBody(CommonBody):
    """The body of a submission with an image."""

    image: Annotated[str, Field(min_length=1, description="URL, data URI or base64 of the first frame.")]
    size: Annotated[str | None, Field(description="By default the size whose shape is nearest to the image's.")] = None
    duration: Annotated[float, Field(gt=0, le=170, description="Seconds: 121 or 241 frames.")] = 5.0
    image_fit: ImageFit | None = None  # not part of WaveSpeed's API, as ``rewrite``


class UploadBody(Body):
    """The file that a client is about to upload; only images can be used."""

    filename: str
    size: Annotated[int, Field(ge=1, le=MAX_BYTES)]
    content_type: str | None = None


class SubmissionQuery(Body):
    """The query of a submission."""

    webhook: Annotated[str, Field(json_schema_extra={"format": "uri"})] | None = None


_Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ListBody(Body):
    """The page and the filters of a list; the documentation marks both numbers as required but gives defaults."""

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=100)] = 100
    model: str | None = None
    status: PredictionStatus | None = None
    created_after: _Moment | None = None
    created_before: _Moment | None = None


class DeleteBody(Body):
    """The predictions to delete; unknown ids are ignored, as documented."""

    ids: Annotated[list[str], FailFast()]


# Bodies that a server sends


class _Envelope(Reply):
    """The envelope of every successful answer."""

    code: Literal[200]
    message: Literal["success"]


class PredictionUrls(Reply):
    get: Annotated[str, Field(description="URL of the task's state.")]


class PredictionTimings(Reply):
    inference: Annotated[int, Field(description="Computation time in milliseconds; 0 until done.")]


class Prediction(Reply):
    """The state of a task."""

    id: str
    model: str
    outputs: Annotated[list[str], Field(description="URLs, or base64 if requested; empty until done.")]
    urls: PredictionUrls
    has_nsfw_contents: Annotated[list[bool], Field(description="Whether any frame was flagged; empty if unchecked.")]
    status: PredictionStatus
    created_at: Annotated[str, Field(description="ISO 8601, in UTC.")]
    error: Annotated[str, Field(description="Empty unless the task failed.")]
    timings: PredictionTimings
    code: Annotated[
        int | None,
        Field(description="Set if the task failed (1200, 1401, 1403, 5004) or the synchronous wait timed out (5004)."),
    ] = None


class PredictionEvent(Prediction):
    """The webhook at the end of a task: its state, and the submission as ``input``."""

    input: dict[str, Any]


class PredictionReply(_Envelope):
    data: Prediction


class PredictionPage(Reply):
    page: int
    items: list[Prediction]


class PredictionListReply(_Envelope):
    data: PredictionPage


class DeletedCount(Reply):
    deleted_count: Annotated[int, Field(description="Includes cancelled tasks.")]


class PredictionsDeletedReply(_Envelope):
    data: DeletedCount


class UploadInstruction(Reply):
    """The call with which the client sends the file."""

    method: Literal["PUT"]
    url: str
    headers: dict[str, str]


class UploadTicket(Reply):
    upload: UploadInstruction
    download_url: Annotated[str, Field(description="The image for submissions, once it is uploaded.")]


class UploadReply(_Envelope):
    data: UploadTicket


class Balance(Reply):
    balance: Annotated[float, Field(description="Constant, since videos are free on this server.")]


class BalanceReply(_Envelope):
    data: Balance


class WebhookSecret(Reply):
    secret: Annotated[str, Field(description="whsec_ and the key, which is used as text, not decoded.")]


class WebhookSecretReply(_Envelope):
    data: WebhookSecret


class CallSchema(Reply):
    """The API call of a model."""

    type: Literal["model_run"]
    method: Literal["POST"]
    api_path: str
    request_schema: Annotated[dict[str, Any], Field(description="JSON Schema of the body.")]


class ModelSchemas(Reply):
    api_schemas: list[CallSchema]


class ListedModel(Reply):
    """A model that generates videos."""

    model_id: str
    name: str
    type: Literal["text-to-video", "image-to-video"]
    description: str
    base_price: Annotated[float, Field(description="Always 0, since videos are free on this server.")]
    api_schema: ModelSchemas


class ModelListReply(_Envelope):
    data: list[ListedModel]


class WaveSpeedFault(Reply):
    code: int
    message: str
    error: str


# Answers that a client reads, with only the fields that we rely on


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


class _UploadInstructionAnswer(Answer):
    method: Literal["PUT"]
    url: Annotated[str, Field(min_length=1)]
    headers: Lenient[dict[str, str]] = None


class _UploadTicketAnswer(Answer):
    upload: _UploadInstructionAnswer
    download_url: Annotated[str, Field(min_length=1)]


class UploadAnswer(Answer):
    data: _UploadTicketAnswer
