"""Points this process at the local Hub, whose client reads the environment when it is imported."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_hub import LocalHub


def lead_to(hub: LocalHub, cache: Path, patch: pytest.MonkeyPatch, offline: bool = False) -> None:
    """Use this Hub and this cache until the patch is undone."""
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr("huggingface_hub.hf_api.api.endpoint", hub.endpoint)
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
