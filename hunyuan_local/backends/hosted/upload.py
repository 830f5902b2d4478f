"""Uploads the input image of a request to WaveSpeedAI, as the service's published clients do with local files."""

from __future__ import annotations

from ...errors import HostedError, InvalidAnswerError, RateLimitError, SubmissionLostError, UnreachableError
from ...images import InputImage
from ...wires import wavespeed_image
from .client import ServiceClient

_PROBLEM = "the image was not uploaded"


def upload_image(service: ServiceClient, image: InputImage) -> str:
    """Upload an image; returns its address at the service. Creates no task and costs nothing.

    Raises:
        HostedError: the image was not uploaded, and nothing was submitted.
        ConfigError: the image's file is gone, or has changed.
    """
    content = image.content()
    announcement = wavespeed_image.announcement_to_wire(image, len(content))
    try:
        ticket = service.post(wavespeed_image.UPLOAD_PATH, announcement)
        url, headers, address = wavespeed_image.ticket_from_wire(ticket)
        service.put(url, headers, content)
    except (SubmissionLostError, InvalidAnswerError) as error:
        raise UnreachableError(f"{_PROBLEM}: {error}; nothing was submitted; try again later") from error
    except RateLimitError as error:
        raise RateLimitError(f"{_PROBLEM}: {error}; nothing was submitted", error.retry_after_s) from error
    except HostedError as error:
        raise type(error)(f"{_PROBLEM}: {error}; nothing was submitted") from error
    return address
