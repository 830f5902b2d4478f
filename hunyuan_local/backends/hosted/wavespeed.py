"""The WaveSpeedAI backend."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

from ...schema import GenerationRequest, JobView
from ...wires import wavespeed
from .backend import HostedBackend
from .client import ServiceClient
from .upload import upload_image


class WaveSpeedBackend(HostedBackend):
    """Runs ``wavespeed-ai/hunyuan-video/t2v`` at WaveSpeedAI, or ``.../i2v`` for requests with an image.

    Arguments as for :class:`HostedBackend`.
    """

    name = wavespeed.NAME
    wire: ClassVar[ModuleType] = wavespeed
    default_url = "https://api.wavespeed.ai"
    key_variable = "WAVESPEED_API_KEY"
    url_variable = "WAVESPEED_BASE_URL"

    def ask(self, service: ServiceClient, remote_id: str) -> JobView:
        """Query the state of a task once."""
        return wavespeed.job_from_wire(service.get(wavespeed.result_path(remote_id)))

    def model_of(self, request: GenerationRequest) -> str:
        """The service's name of the model that runs a request."""
        return wavespeed.model_of(request)

    def submit_path(self, request: GenerationRequest) -> str:
        """Path of the submission of a request."""
        return wavespeed.submit_path(request)

    def upload(self, service: ServiceClient, request: GenerationRequest) -> dict[str, str]:
        """Upload the image of a request, if it has one; returns the field of the body that names it."""
        return {} if request.image is None else {"image": upload_image(service, request.image)}

    def cancel_remote(self, service: ServiceClient, remote_id: str) -> bool:
        """Delete a task, which is the only documented way to cancel one."""
        answer = service.post(wavespeed.DELETE_PATH, wavespeed.delete_to_wire([remote_id]))
        return wavespeed.deleted_from_wire(answer) > 0
