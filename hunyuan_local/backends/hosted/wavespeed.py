"""The WaveSpeedAI backend."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

from ...schema import JobView
from ...wires import wavespeed
from .backend import HostedBackend
from .client import ServiceClient


class WaveSpeedBackend(HostedBackend):
    """Runs ``wavespeed-ai/hunyuan-video/t2v`` at WaveSpeedAI; arguments as for :class:`HostedBackend`."""

    name = wavespeed.NAME
    wire: ClassVar[ModuleType] = wavespeed
    default_url = "https://api.wavespeed.ai"
    key_variable = "WAVESPEED_API_KEY"
    url_variable = "WAVESPEED_BASE_URL"

    def ask(self, service: ServiceClient, remote_id: str) -> JobView:
        """Query the state of a task once."""
        return wavespeed.job_from_wire(service.get(wavespeed.result_path(remote_id)))

    def cancel_remote(self, service: ServiceClient, remote_id: str) -> bool:
        """Delete a task, which is the only documented way to cancel one."""
        answer = service.post(wavespeed.DELETE_PATH, wavespeed.delete_to_wire([remote_id]))
        return wavespeed.deleted_from_wire(answer) > 0
