"""The Novita backend."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

from ...schema import JobView
from ...wires import novita
from .backend import HostedBackend
from .client import ServiceClient


class NovitaBackend(HostedBackend):
    """Runs ``hunyuan-video-fast`` at Novita, which cannot cancel tasks; arguments as for :class:`HostedBackend`."""

    name = novita.NAME
    wire: ClassVar[ModuleType] = novita
    default_url = "https://api.novita.ai"
    key_variable = "NOVITA_API_KEY"
    url_variable = "NOVITA_BASE_URL"

    def ask(self, service: ServiceClient, remote_id: str) -> JobView:
        """Query the state of a task once."""
        return novita.job_from_wire(service.get(novita.RESULT_PATH, novita.result_query(remote_id)))
