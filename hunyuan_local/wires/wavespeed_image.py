"""WaveSpeed's image to video and its uploads.

References: the page of ``wavespeed-ai/hunyuan-video/i2v``; uploads are documented by the published clients alone (2.0.5
and 1.0.14 in Python, 0.3.2 in JavaScript): a ticket names the address to which the file is sent with PUT, and the
address that a submission names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import FieldProblem, InvalidRequestError
from ..images import InputImage
from . import wavespeed
from .base import Submission, frames_in, make_request, read_answer, read_body
from .sent_image import SentImage
from .wavespeed import FPS, IMAGE_CAPABILITIES, common_fields, size_from_wire, submission_of
from .wavespeed_models import (
    SUCCESS,
    ImageSubmissionBody,
    UploadAnswer,
    UploadBody,
    UploadInstruction,
    UploadReply,
    UploadTicket,
)
from .wording import Said

NAME = wavespeed.NAME
UPLOAD_PATH = "/api/v3/media/uploads"
SECONDS = (5, 10)
# The limits before the image is known, which also chooses the size.
_LIMITS = IMAGE_CAPABILITIES.model_copy(update={"takes_image": False, "defaults": {}})


def request_from_wire(body: object, query: Mapping[str, str] | None = None, *, relaxed: bool = False) -> Submission:
    """Parse a received submission with an image, as :func:`.wavespeed.request_from_wire` does without.

    A size that is not given is the supported one whose shape is nearest to the image's; if ``relaxed``, the model's.

    Raises:
        InvalidRequestError: names each invalid field as the dialect does.
    """
    fields = read_body(ImageSubmissionBody, body)
    seconds = int(fields.duration) if fields.duration.is_integer() else fields.duration
    if not relaxed and seconds not in SECONDS:
        rule = "must be 5 or 10 seconds (121 or 241 frames)"
        raise InvalidRequestError([FieldProblem("duration", seconds, rule)])
    frames = frames_in(fields.duration, FPS)
    size, said = ({}, {}) if fields.size is None else size_from_wire(fields.size)
    said |= {"num_frames": Said("duration", seconds, meaning=f"is {frames} frames")}
    request = make_request(NAME, _LIMITS, said, relaxed, **common_fields(fields), **size, num_frames=frames)
    sizes = () if relaxed else IMAGE_CAPABILITIES.image_sizes
    image = SentImage("image", fields.image, fields.image_fit, sizes)
    return Submission(**vars(submission_of(request, fields, query, said)) | {"image": image})


def upload_from_wire(body: object) -> UploadBody:
    """Parse the announcement of an upload.

    Raises:
        InvalidRequestError: names each invalid field, such as a size above the limit for images.
    """
    return read_body(UploadBody, body)


def upload_to_wire(url: str) -> UploadReply:
    """The ticket for an upload; the file has the same address for both calls."""
    instruction = UploadInstruction(method="PUT", url=url, headers={})
    return UploadReply(**SUCCESS, data=UploadTicket(upload=instruction, download_url=url))


def announcement_to_wire(image: InputImage, size: int) -> dict[str, Any]:
    """The announcement of an upload, with its size in bytes."""
    extension = image.format.lower()
    return {"filename": f"image.{extension}", "size": size, "content_type": f"image/{extension}"}


def ticket_from_wire(body: object) -> tuple[str, dict[str, str], str]:
    """Where to send a file: the address for PUT, the headers to send along, and the file's address afterwards.

    Raises:
        InvalidAnswerError: a field is missing.
    """
    ticket = read_answer(UploadAnswer, body, NAME).data
    return ticket.upload.url, ticket.upload.headers or {}, ticket.download_url
