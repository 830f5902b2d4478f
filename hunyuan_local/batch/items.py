"""What a batch is to make: each item with its identity, which decides whether it is there already, and its name.

The identity is a hash of what is asked for and of who makes it, never of a file's name. Knows nothing
about jobs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..schema import GenerationRequest
from .file import BatchItem

_SLUG_CHARACTERS = 40


@dataclass(frozen=True)
class Maker:
    """Who makes the videos.

    Attributes:
        identity: of the model, or of the service; see :class:`hunyuan_local.backends.base.Backend`.
        weights: identity of its weights; empty where they are not known.
        defaults: of request fields that nobody gave.
    """

    identity: str
    weights: str
    defaults: dict[str, object]


@dataclass(frozen=True)
class WantedItem:
    """One video that the batch is to have.

    Attributes:
        line: where the file asks for it.
        request: complete but for a seed that nobody gave.
        key: the same for the same request, copy, model and weights.
    """

    line: int
    request: GenerationRequest
    key: str

    def name_for(self, seed: int) -> str:
        """A name for the file: line, the prompt's beginning, seed, and enough of the key to be unique.

        It is chosen once, for the first job: lines move, and files stay.
        """
        slug = re.sub(r"[\W_]+", "-", self.request.prompt.lower())[:_SLUG_CHARACTERS].strip("-")
        while len(slug.encode()) > 2 * _SLUG_CHARACTERS:  # of a name no more than 255 bytes are allowed
            slug = slug[:-1]
        return "-".join(filter(None, [f"{self.line:04}", slug, str(seed), self.key[:6]])) + ".mp4"


def wanted_items(items: Iterable[BatchItem], maker: Maker) -> tuple[list[WantedItem], list[str]]:
    """The items of a file, for who is to make them; and notes on those that are there already.

    Requests that ask for the same, once the defaults are filled in, are told apart by their number if they
    leave the seed open; with a seed they are the same video.
    """
    found: list[WantedItem] = []
    notes: list[str] = []
    lines: dict[GenerationRequest, list[int]] = {}
    for item in items:
        request = item.request.with_defaults(dict(maker.defaults))
        same = lines.setdefault(request, [])
        if same and request.seed is not None:
            notes.append(f"line {item.line} asks for the same video as line {same[0]}, seed {request.seed}: made once")
            continue
        parts = [request.model_dump(), len(same), maker.identity, maker.weights]
        same.append(item.line)
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        found.append(WantedItem(item.line, request, key))
    return found, notes
