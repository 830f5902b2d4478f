"""Novita as a backend: what it has of its own; the work is in ``hosted``."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

from ...schema import JobView
from ...wires import novita
from .backend import HostedBackend
from .client import ServiceClient


class NovitaBackend(HostedBackend):
    """``hunyuan-video-fast``; arguments as for :class:`HostedBackend`. It has no way to cancel a task."""

    name = novita.NAME
    wire: ClassVar[ModuleType] = novita
    default_url = "https://api.novita.ai"
    key_variable = "NOVITA_API_KEY"
    url_variable = "NOVITA_BASE_URL"

    def ask(self, service: ServiceClient, remote_id: str) -> JobView:
        """One look at a task."""
        return novita.job_from_wire(service.get(novita.RESULT_PATH, novita.result_query(remote_id)))
