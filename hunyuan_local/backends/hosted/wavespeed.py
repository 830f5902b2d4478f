"""WaveSpeedAI as a backend: what it has of its own; the work is in ``hosted``."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

from ...schema import JobView
from ...wires import wavespeed
from .backend import HostedBackend
from .client import ServiceClient


class WaveSpeedBackend(HostedBackend):
    """``wavespeed-ai/hunyuan-video/t2v``; arguments as for :class:`HostedBackend`."""

    name = wavespeed.NAME
    wire: ClassVar[ModuleType] = wavespeed
    default_url = "https://api.wavespeed.ai"
    key_variable = "WAVESPEED_API_KEY"
    url_variable = "WAVESPEED_BASE_URL"

    def ask(self, service: ServiceClient, remote_id: str) -> JobView:
        """One look at a task."""
        return wavespeed.job_from_wire(service.get(wavespeed.result_path(remote_id)))

    def cancel_remote(self, service: ServiceClient, remote_id: str) -> bool:
        """Delete a task, the only way that the service documents to be rid of one."""
        answer = service.post(wavespeed.DELETE_PATH, wavespeed.delete_to_wire([remote_id]))
        return wavespeed.deleted_from_wire(answer) > 0
