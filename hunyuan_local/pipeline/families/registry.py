"""The architecture of a checkpoint, from the ``config.json`` of its transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Family
from .hunyuan_video import HunyuanVideo
from .image_to_video import LatentConcat, TokenReplace

_BY_IMAGE_CONDITION: Mapping[str | None, Family] = {
    None: HunyuanVideo(),
    "token_replace": TokenReplace(),
    "latent_concat": LatentConcat(),
}

FAMILIES = tuple(_BY_IMAGE_CONDITION.values())


def family_of(transformer: Mapping[str, Any]) -> Family | None:
    """The architecture whose transformer has this configuration; None if it is another one's."""
    return _BY_IMAGE_CONDITION.get(transformer.get("image_condition_type"))
